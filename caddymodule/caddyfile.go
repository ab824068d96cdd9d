package caddymodule

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(appName, parseApp)
	for _, d := range directives {
		httpcaddyfile.RegisterHandlerDirective(d.name, d.parse)
		// Each is placed directly before `respond`, and so after the ones above it. What
		// they pass on or do not match can be answered by `respond`, `reverse_proxy` and
		// the directives after these.
		httpcaddyfile.RegisterDirectiveOrder(d.name, httpcaddyfile.Before, "respond")
	}
}

// directives are the directives of the Caddyfile, in the order in which they handle requests.
var directives = []struct {
	name  string
	parse httpcaddyfile.UnmarshalHandlerFunc
}{
	{"dsapp_health", parseHandler[HealthHandler]},
	{"dsapp_docs", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		handler := new(DocsHandler) // it needs no app
		return handler, handler.UnmarshalCaddyfile(h.Dispenser)
	}},
	{"dsapp_gateway", parseHandler[Handler]},
}

// parseHandler parses the directive of a handler of type H. Without the app, the handler
// could not be loaded.
func parseHandler[H any, P interface {
	*H
	caddyhttp.MiddlewareHandler
	caddyfile.Unmarshaler
}](h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := P(new(H))
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if h.Option(appName) == nil {
		return nil, h.Errf("the global option %s is missing, which configures the gateway", appName)
	}
	return handler, nil
}

// UnmarshalCaddyfile parses the directive, which has no options:
//
//	dsapp_gateway [<matcher>]
func (*Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return parseBare(d) }

// UnmarshalCaddyfile parses the directive, which has no options:
//
//	dsapp_health [<matcher>]
func (*HealthHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return parseBare(d) }

// UnmarshalCaddyfile parses the directive:
//
//	dsapp_docs [<matcher>] {
//	    console on|off
//	}
func (h *DocsHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return docsBlock.readModule(d, h)
}

// parseApp parses the global option `dsapp`.
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next()
	if existing != nil {
		return nil, d.Errf("the global option %s can be given only once", d.Val())
	}
	d.Prev()
	var a App
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(&a)
	return httpcaddyfile.App{Name: appName, Value: encoded}, err
}

// UnmarshalCaddyfile parses the global option `dsapp`. Its options are those of the JSON
// configuration, under the same names, with these exceptions: each element of a list of
// objects is an option (`api_key`, `instance`), several options `profile` of `activation` are its
// `profiles`, and the options about TLS are those of Caddy's directive `reverse_proxy`.
//
//	dsapp {
//	    api_key <name> {
//	        class front_end|back_end
//	        key <key>
//	        key_sha256 <hash>
//	        allow <ranges...>
//	        profile <name>
//	    }
//	    sealing_keys <keys...>
//	    store <backend> {
//	        ...
//	    }
//	    authentication_servers {
//	        instance <name> <url>
//	        deployment replicated|shared_database
//	        policy first|round_robin
//	        soap_version 1.1|1.2
//	        dial_timeout <duration>
//	        idle_timeout <duration>
//	        timeout <duration>
//	        max_connections <number>
//	        reserved_connections <number>
//	        max_waiting <number>
//	        max_queue <number>
//	        probe_interval <duration>
//	        tls_trust_pool <module> {
//	            ...
//	        }
//	        tls_client_auth <certificate_file> <key_file>
//	        tls_server_name <name>
//	        tls_timeout <duration>
//	        tls_curves <curves...>
//	        tls_renegotiation never|once|freely
//	        tls_insecure_skip_verify
//	        component_types {
//	            provisioning <name>
//	            authentication <name>
//	            signature <name>
//	            notification <name>
//	        }
//	        attributes {
//	            activation_message <name>
//	            instance_activation_message <name>
//	            event_reactivation_counter <name>
//	            device_description <name>
//	        }
//	        breaker {
//	            failures <number>
//	            cooldown <duration>
//	        }
//	    }
//	    activation {
//	        exchange gateway|relay
//	        profile <profile>|<module> {
//	            ...
//	        }
//	        registration_lifetime <duration>
//	        handshake_lifetime <duration>
//	        max_attempts <number>
//	        max_activations <number>
//	        unknown refuse|forward
//	        hide_unknown_users [true|false]
//	        gateway_id <text>
//	        password {
//	            length <number>
//	            alphabet <text>
//	        }
//	    }
//	    requests {
//	        lifetime <duration>
//	        unknown forward|refuse
//	        plain_cancel forward|refuse
//	        repeat <duration>
//	    }
//	    limits {
//	        max_body_size <size>
//	        body_timeout <duration>
//	        max_exchanges <number>
//	        failed_keys_per_minute <number>
//	        exchanges_per_minute <number>
//	        registrations_per_minute <number>
//	        calls_per_minute <number>
//	        requests_in_flight <number>
//	        calls_in_flight <number>
//	        nat64_prefixes <prefixes...>
//	    }
//	    cors {
//	        origins <origins...>
//	    }
//	    health {
//	        store require|report
//	        instances any|all
//	    }
//	    status_codes {
//	        STAT_NOSUPPORT <number>
//	    }
//	}
//
// Options with several values can be repeated, as `api_key` and `instance` can. All others
// are given once.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the option
	if err := readNoArguments(d); err != nil {
		return err
	}
	return appBlock.require(d, a)
}

// UnmarshalCaddyfile parses the store in a Caddyfile:
//
//	store embedded {
//	    path <file>
//	}
func (s *EmbeddedStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return embeddedBlock.readModule(d, s)
}

// UnmarshalCaddyfile parses the store in a Caddyfile. The options about TLS are those of
// Caddy's directive `reverse_proxy`; `tls` alone trusts the authorities that the system
// trusts.
//
//	store redis {
//	    addresses <addresses...>
//	    cluster [true|false]
//	    master_name <name>
//	    username <name>
//	    password <password>
//	    sentinel_username <name>
//	    sentinel_password <password>
//	    db <number>
//	    key_prefix <prefix>
//	    wait_replicas <number>
//	    tls
//	    tls_trust_pool <module> {
//	        ...
//	    }
//	    tls_client_auth <certificate_file> <key_file>
//	    tls_server_name <name>
//	    tls_curves <curves...>
//	    tls_renegotiation never|once|freely
//	    tls_insecure_skip_verify
//	    dial_timeout <duration>
//	    timeout <duration>
//	    pool_size <number>
//	}
func (s *RedisStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return redisBlock.readModule(d, s)
}

// UnmarshalCaddyfile parses the profile in a Caddyfile:
//
//	profile rfc5054 {
//	    name <profile>
//	}
func (p *RFC5054) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return rfc5054Block.readModule(d, p)
}

// UnmarshalCaddyfile parses the profile in a Caddyfile:
//
//	profile srp6a {
//	    name <name>
//	    preset <library>
//	    group <group>
//	    hash sha1|sha256|sha384|sha512
//	    k <words...>
//	    inner <words...>
//	    x <words...>
//	    u <words...>
//	    key_function hash|none|mgf1|interleave
//	    key_input <word>
//	    m1 <words...>
//	    m2 <words...>
//	    hex_case upper|lower
//	    key_derivation hkdf|hash|none
//	    hkdf_salt transcript|salt|none
//	    hkdf_info <text>
//	    counter first|last|block
//	    mac <words...>
//	}
func (p *SRP6a) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return srp6aBlock.readModule(d, p)
}

var appBlock = newBlock(appName, settings[App]{
	"api_key": element(&apiKeyBlock, func(a *App, k APIKey) { a.APIKeys = append(a.APIKeys, k) },
		argument[APIKey]{"name", func(k *APIKey, v string) { k.Name = v }}),
	"sealing_keys":           list(asSecret, func(a *App, v string) { a.SealingKeys = append(a.SealingKeys, v) }),
	"store":                  module(storeNamespace, "backend", func(a *App, v json.RawMessage) { a.StoreRaw = v }),
	"authentication_servers": section(func(a *App) *AuthenticationServers { return &a.AuthenticationServers }, serversBlock),
	"activation":             section(func(a *App) *Activation { return &a.Activation }, activationBlock),
	"requests":               section(func(a *App) *Requests { return &a.Requests }, requestsBlock),
	"limits":                 section(func(a *App) *Limits { return &a.Limits }, limitsBlock),
	"cors":                   section(func(a *App) *CORS { return &a.CORS }, corsBlock),
	"health":                 section(func(a *App) *Health { return &a.Health }, healthBlock),
	"status_codes":           section(func(a *App) *StatusCodes { return &a.StatusCodes }, statusCodesBlock),
})

var docsBlock = newBlock("dsapp_docs", settings[DocsHandler]{
	"console": one(asSwitch, func(h *DocsHandler, v bool) { h.Console = v }),
})

var apiKeyBlock = newBlock("api_key", settings[APIKey]{
	"class":      one(asWord(apikey.FrontEnd, apikey.BackEnd), func(k *APIKey, v string) { k.Class = v }),
	"key":        one(asSecret, func(k *APIKey, v string) { k.Key = v }),
	"key_sha256": one(asSecret, func(k *APIKey, v string) { k.KeySHA256 = v }),
	"allow":      list(asText, func(k *APIKey, v string) { k.Allow = append(k.Allow, v) }),
	"profile":    one(asText, func(k *APIKey, v string) { k.Profile = v }),
})

var serversBlock = newBlock("authentication_servers", withTLS(settings[AuthenticationServers]{
	"instance": element(nil, func(s *AuthenticationServers, in Instance) { s.Instances = append(s.Instances, in) },
		argument[Instance]{"name", func(in *Instance, v string) { in.Name = v }},
		argument[Instance]{"url", func(in *Instance, v string) { in.URL = v }}),
	"deployment":           one(asWord(authserver.DeploymentReplicated, authserver.DeploymentShared), func(s *AuthenticationServers, v string) { s.Deployment = v }),
	"policy":               one(asWord(authserver.PolicyFirst, authserver.PolicyRoundRobin), func(s *AuthenticationServers, v string) { s.Policy = v }),
	"soap_version":         one(asWord("1.1", "1.2"), func(s *AuthenticationServers, v string) { s.SOAPVersion = v }),
	"dial_timeout":         one(asDuration, func(s *AuthenticationServers, v caddy.Duration) { s.DialTimeout = v }),
	"idle_timeout":         one(asDuration, func(s *AuthenticationServers, v caddy.Duration) { s.IdleTimeout = v }),
	"timeout":              one(asDuration, func(s *AuthenticationServers, v caddy.Duration) { s.Timeout = v }),
	"max_connections":      one(asNumber, func(s *AuthenticationServers, v int) { s.MaxConnections = v }),
	"reserved_connections": one(asNumber, func(s *AuthenticationServers, v int) { s.ReservedConnections = &v }),
	"max_waiting":          one(asNumber, func(s *AuthenticationServers, v int) { s.MaxWaiting = v }),
	"max_queue":            one(asNumber, func(s *AuthenticationServers, v int) { s.MaxQueue = &v }),
	"probe_interval":       one(asDuration, func(s *AuthenticationServers, v caddy.Duration) { s.ProbeInterval = &v }),
	"component_types":      section(func(s *AuthenticationServers) *ComponentTypes { return &s.ComponentTypes }, componentTypesBlock),
	"attributes":           section(func(s *AuthenticationServers) *Attributes { return &s.Attributes }, attributesBlock),
	"breaker":              section(func(s *AuthenticationServers) *Breaker { return &s.Breaker }, breakerBlock),
}, func(s *AuthenticationServers) *tlsPointer { return &s.TLS }, tlsSettings, handshakeSettings))

var componentTypesBlock = newBlock("component_types", settings[ComponentTypes]{
	"provisioning":   one(asText, func(t *ComponentTypes, v string) { t.Provisioning = v }),
	"authentication": one(asText, func(t *ComponentTypes, v string) { t.Authentication = v }),
	"signature":      one(asText, func(t *ComponentTypes, v string) { t.Signature = v }),
	"notification":   one(asText, func(t *ComponentTypes, v string) { t.Notification = v }),
})

var attributesBlock = newBlock("attributes", settings[Attributes]{
	"activation_message":          one(asText, func(a *Attributes, v string) { a.ActivationMessage = v }),
	"instance_activation_message": one(asText, func(a *Attributes, v string) { a.InstanceActivationMessage = v }),
	"event_reactivation_counter":  one(asText, func(a *Attributes, v string) { a.EventReactivationCounter = v }),
	"device_description":          one(asText, func(a *Attributes, v string) { a.DeviceDescription = v }),
})

var breakerBlock = newBlock("breaker", settings[Breaker]{
	"failures": one(asNumber, func(b *Breaker, v int) { b.Failures = v }),
	"cooldown": one(asDuration, func(b *Breaker, v caddy.Duration) { b.Cooldown = v }),
})

var activationBlock = newBlock("activation", settings[Activation]{
	"exchange":              one(asWord(gateway.ExchangeGateway, gateway.ExchangeRelay), func(a *Activation, v string) { a.Exchange = v }),
	"profile":               profileSetting(),
	"registration_lifetime": one(asDuration, func(a *Activation, v caddy.Duration) { a.RegistrationLifetime = v }),
	"handshake_lifetime":    one(asDuration, func(a *Activation, v caddy.Duration) { a.HandshakeLifetime = v }),
	"max_attempts":          one(asNumber, func(a *Activation, v int) { a.MaxAttempts = v }),
	"max_activations":       one(asNumber, func(a *Activation, v int) { a.MaxActivations = v }),
	"unknown":               one(asWord(gateway.RefuseUnknown, gateway.ForwardUnknown), func(a *Activation, v string) { a.Unknown = v }),
	"hide_unknown_users":    toggle(func(a *Activation, v bool) { a.HideUnknownUsers = v }),
	"gateway_id":            one(asText, func(a *Activation, v string) { a.GatewayID = v }),
	"password":              section(func(a *Activation) *Password { return &a.Password }, passwordBlock),
})

func profileNames() (names []string) {
	for _, p := range srp.Profiles() {
		names = append(names, p.Name())
	}
	return names
}

var rfc5054Block = newBlock("profile rfc5054", settings[RFC5054]{
	"name": one(asWord(profileNames()...), func(p *RFC5054, v string) { p.Name = v }),
})

var srp6aBlock = newBlock("profile srp6a", srp6aSettings())

// srp6aSettings returns the options of SRP6a, which variant.Dimensions lists except for two.
func srp6aSettings() settings[SRP6a] {
	all := settings[SRP6a]{
		"name":   one(asText, func(p *SRP6a, v string) { p.Name = v }),
		"preset": one(asText, func(p *SRP6a, v string) { p.Preset = v }),
	}
	for _, d := range variant.Dimensions {
		if d.Word || d.Text {
			all[d.Name] = one(asText, func(p *SRP6a, v string) { d.Set(&p.Variant, []string{v}) })
			continue
		}
		all[d.Name] = list(asText, func(p *SRP6a, v string) { d.Set(&p.Variant, append(d.Get(p.Variant), v)) })
	}
	return all
}

var passwordBlock = newBlock("password", settings[Password]{
	"length":   one(asNumber, func(p *Password, v int) { p.Length = v }),
	"alphabet": one(asText, func(p *Password, v string) { p.Alphabet = v }),
})

var requestsBlock = newBlock("requests", settings[Requests]{
	"lifetime":     one(asDuration, func(r *Requests, v caddy.Duration) { r.Lifetime = v }),
	"unknown":      one(asWord(ownership.ForwardUnknown, ownership.RefuseUnknown), func(r *Requests, v string) { r.Unknown = v }),
	"repeat":       one(asDuration, func(r *Requests, v caddy.Duration) { r.Repeat = &v }),
	"plain_cancel": one(asWord(ownership.ForwardPlain, ownership.RefusePlain), func(r *Requests, v string) { r.PlainCancel = v }),
})

var limitsBlock = newBlock("limits", settings[Limits]{
	"max_body_size":            one(asSize, func(l *Limits, v int64) { l.MaxBodySize = v }),
	"body_timeout":             one(asDuration, func(l *Limits, v caddy.Duration) { l.BodyTimeout = v }),
	"max_exchanges":            one(asNumber, func(l *Limits, v int) { l.MaxExchanges = v }),
	"failed_keys_per_minute":   one(asNumber, func(l *Limits, v int) { l.FailedKeysPerMinute = &v }),
	"exchanges_per_minute":     one(asNumber, func(l *Limits, v int) { l.ExchangesPerMinute = &v }),
	"registrations_per_minute": one(asNumber, func(l *Limits, v int) { l.RegistrationsPerMinute = &v }),
	"calls_per_minute":         one(asNumber, func(l *Limits, v int) { l.CallsPerMinute = &v }),
	"requests_in_flight":       one(asNumber, func(l *Limits, v int) { l.RequestsInFlight = &v }),
	"calls_in_flight":          one(asNumber, func(l *Limits, v int) { l.CallsInFlight = &v }),
	"nat64_prefixes":           list(asText, func(l *Limits, v string) { l.NAT64Prefixes = append(l.NAT64Prefixes, v) }),
})

var corsBlock = newBlock("cors", settings[CORS]{
	"origins": list(asText, func(c *CORS, v string) { c.Origins = append(c.Origins, v) }),
})

var healthBlock = newBlock("health", settings[Health]{
	"store":     one(asWord(healthRequire, healthReport), func(h *Health, v string) { h.Store = v }),
	"instances": one(asWord(healthAny, healthAll), func(h *Health, v string) { h.Instances = v }),
})

var statusCodesBlock = newBlock("status_codes", settings[StatusCodes]{
	"STAT_NOSUPPORT": one(asInt32, func(s *StatusCodes, v int32) { s.NoSupport = &v }),
})

var embeddedBlock = newBlock("embedded", settings[EmbeddedStore]{
	"path": one(asText, func(s *EmbeddedStore, v string) { s.Path = v }),
})

var redisBlock = newBlock("redis", withTLS(settings[RedisStore]{
	"addresses":         list(asText, func(s *RedisStore, v string) { s.Addresses = append(s.Addresses, v) }),
	"cluster":           toggle(func(s *RedisStore, v bool) { s.Cluster = v }),
	"master_name":       one(asText, func(s *RedisStore, v string) { s.MasterName = v }),
	"username":          one(asText, func(s *RedisStore, v string) { s.Username = v }),
	"password":          one(asSecret, func(s *RedisStore, v string) { s.Password = v }),
	"sentinel_username": one(asText, func(s *RedisStore, v string) { s.SentinelUsername = v }),
	"sentinel_password": one(asSecret, func(s *RedisStore, v string) { s.SentinelPassword = v }),
	"db":                one(asNumber, func(s *RedisStore, v int) { s.DB = v }),
	"key_prefix":        one(asText, func(s *RedisStore, v string) { s.KeyPrefix = v }),
	"wait_replicas":     one(asNumber, func(s *RedisStore, v int) { s.WaitReplicas = v }),
	"dial_timeout":      one(asDuration, func(s *RedisStore, v caddy.Duration) { s.DialTimeout = v }),
	"timeout":           one(asDuration, func(s *RedisStore, v caddy.Duration) { s.Timeout = v }),
	"pool_size":         one(asNumber, func(s *RedisStore, v int) { s.PoolSize = v }),
}, func(s *RedisStore) *tlsPointer { return &s.TLS }, tlsSettings))

var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*EmbeddedStore)(nil)
	_ caddyfile.Unmarshaler = (*RedisStore)(nil)
	_ caddyfile.Unmarshaler = (*RFC5054)(nil)
	_ caddyfile.Unmarshaler = (*SRP6a)(nil)
)
