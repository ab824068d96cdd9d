//go:build linux

package testbed

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// HealthPath is the path of the health check on the site.
const HealthPath = "/health"

// Object is a JSON object.
type Object = map[string]any

// Keys of the configurations.
const (
	FrontEndKey = "test-front-end-key"
	BackEndKey  = "test-back-end-key"
	SealingKey  = "5e41179a1b8ff3a3c1b0f2a96dd7f5d2a44e3d0c8b1a6f7e9d2c3b4a59687706"
	// OtherFrontEndKey is that of another application on the same phones. See
	// AddOtherApplication.
	OtherFrontEndKey = "another-application-key"
)

// Configure returns a gateway that is not started, in front of the authentication server at
// a URL. It has an embedded store, no limits, and all it does in its log. The function edit,
// unless nil, may change the "dsapp" app in its configuration.
func Configure(t testing.TB, certs sandbox.Certificates, server string, edit func(dsapp Object)) *Gateway {
	t.Helper()
	g := &Gateway{
		URL:          "https://" + freeport.Address(t),
		Admin:        freeport.Address(t),
		Logs:         new(output.Buffer),
		Certificates: certs,
	}
	dsapp := Object{
		"api_keys": []Object{
			{"name": "mobile-app", "class": "front_end", "key": "{env.TEST_FRONT_END_KEY}"},
			{"name": "bank-site", "class": "back_end", "key": "{env.TEST_BACK_END_KEY}"},
		},
		"sealing_keys": []string{"{env.TEST_SEALING_KEY}"},
		"store":        Object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")},
		"authentication_servers": Object{
			"instances": []Object{{"name": "primary", "url": server}},
			"tls":       Object{"ca": Object{"provider": "file", "pem_files": []string{certs.Authority}}},
			"timeout":   poll.Patience.String(), "dial_timeout": poll.Patience.String(),
		},
		"limits": Object{
			"failed_keys_per_minute": 0, "exchanges_per_minute": 0, "registrations_per_minute": 0, "calls_per_minute": 0,
			"requests_in_flight": 0, "calls_in_flight": 0,
		},
	}
	if edit != nil {
		edit(dsapp)
	}
	g.Config = Object{
		"admin": Object{"listen": g.Admin, "config": Object{"persist": false}},
		"logging": Object{"logs": Object{"default": Object{
			"level": "DEBUG", "encoder": Object{"format": "json"},
		}}},
		"apps": Object{
			"http": Object{"grace_period": "10s", "servers": Object{"gateway": Object{
				"listen":          []string{strings.TrimPrefix(g.URL, "https://")},
				"protocols":       []string{"h1", "h2"},
				"automatic_https": Object{"disable": true},
				"logs":            Object{},
				"routes": []Object{{
					"match":  []Object{{"path": []string{"/rest/*"}}},
					"handle": []Object{{"handler": "dsapp_gateway"}},
				}, {
					"match":  []Object{{"path": []string{HealthPath}}},
					"handle": []Object{{"handler": "dsapp_health"}},
				}},
				"tls_connection_policies": []Object{{}},
			}}},
			"tls": Object{"certificates": Object{"load_files": []Object{
				{"certificate": certs.Certificate, "key": certs.Key},
			}}},
			"dsapp": dsapp,
		},
	}
	g.Client = Watched(NewClient(t, certs.Authority, ""))
	return g
}

// Start starts an authentication server and a gateway in front of it. See Configure.
func Start(t testing.TB, edit func(dsapp Object)) (*Gateway, *Server) {
	t.Helper()
	certs := Certificates(t)
	server := StartServer(t, certs)
	return StartGateway(t, certs, server.URL, edit), server
}

// StartGateway starts a gateway that is configured as by Configure.
func StartGateway(t testing.TB, certs sandbox.Certificates, server string, edit func(dsapp Object)) *Gateway {
	t.Helper()
	g := Configure(t, certs, server, edit)
	g.Start(t)
	return g
}

// StartQuietGateway starts a gateway for a load: it knows the other application and logs
// warnings only.
func StartQuietGateway(t *testing.T, certs sandbox.Certificates, server string, edit func(dsapp Object)) *Gateway {
	t.Helper()
	g := Configure(t, certs, server, func(dsapp Object) {
		AddOtherApplication(dsapp)
		if edit != nil {
			edit(dsapp)
		}
	})
	g.LogLevel("WARN")
	delete(g.HTTPServer(), "logs")
	g.Start(t)
	return g
}

// AddOtherApplication adds the key of another application.
func AddOtherApplication(dsapp Object) {
	dsapp["api_keys"] = append(dsapp["api_keys"].([]Object), Object{"name": "other-app", "class": "front_end", "key": OtherFrontEndKey})
}

// RedisStore configures a store on Redis servers, with timeouts of poll.Patience.
func RedisStore(addresses ...string) Object {
	return Object{"backend": "redis", "addresses": addresses, "timeout": poll.Patience.String(), "dial_timeout": poll.Patience.String()}
}

// ClusterStore configures a store on a cluster of Redis servers.
func ClusterStore(c *redistest.Cluster) Object {
	config := RedisStore(c.Addresses()...)
	config["cluster"] = true
	return config
}

// StartNodes starts gateways that share a Redis server, in front of two authentication
// servers with pending requests of their own: the primary, and the backup.
func StartNodes(t *testing.T, count int, edit func(dsapp Object)) (gateways []*Gateway, primary, backup *Server, redis *redistest.Server) {
	t.Helper()
	certs := Certificates(t)
	primary = StartServer(t, certs)
	backup = StartReplica(t, certs, primary)
	redis = redistest.Start(t)
	for range count {
		gateways = append(gateways, StartGateway(t, certs, primary.URL, func(dsapp Object) {
			AddOtherApplication(dsapp)
			dsapp["store"] = RedisStore(redis.Addr())
			AddBackup(dsapp, backup.URL)
			dsapp["authentication_servers"].(Object)["max_queue"] = 1000
			if edit != nil {
				edit(dsapp)
			}
		}))
	}
	return gateways, primary, backup, redis
}

// AddBackup adds another authentication server to the configuration of an app.
func AddBackup(dsapp Object, url string) {
	servers := dsapp["authentication_servers"].(Object)
	servers["instances"] = append(servers["instances"].([]Object), Object{"name": "backup", "url": url})
}

// LogLevel sets the level from which on the next configuration logs.
func (g *Gateway) LogLevel(level string) {
	g.Config["logging"].(Object)["logs"].(Object)["default"].(Object)["level"] = level
}

// HTTPServer returns the configuration of the HTTP server, for the next Start or Load.
func (g *Gateway) HTTPServer() Object {
	return g.Config["apps"].(Object)["http"].(Object)["servers"].(Object)["gateway"].(Object)
}

// App returns the configuration of the "dsapp" app, for the next Start or Load.
func (g *Gateway) App() Object { return g.Config["apps"].(Object)["dsapp"].(Object) }
