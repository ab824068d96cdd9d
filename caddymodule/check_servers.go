package caddymodule

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

const (
	// maxClockDifference is how much the clocks of gateway and instance may differ.
	maxClockDifference = 5 * time.Minute
	// certificateNotice is how long before its end a certificate is reported.
	certificateNotice = 30 * 24 * time.Hour
	// notFound is the status of a retrieval of a key that does not exist.
	notFound = "STAT_NOT_FOUND"
)

// checkServers checks every authentication server.
func (a *App) checkServers(ctx context.Context, f *findings) {
	var checks sync.WaitGroup
	for i := range a.AuthenticationServers.Instances {
		checks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 6*checkTimeout)
			defer cancel()
			c := &serverCheck{
				findings: f, servers: &a.AuthenticationServers, instance: a.AuthenticationServers.Instances[i],
				Client: a.AuthenticationServers.clients[i],
			}
			c.run(ctx)
		})
	}
	checks.Wait()
}

// serverCheck is the check of one instance.
type serverCheck struct {
	*findings
	*httpclient.Client

	servers  *AuthenticationServers
	instance Instance
	// offset is the clock of the instance minus that of this machine, by the last answer.
	offset atomic.Pointer[time.Duration]
}

func (c *serverCheck) found(check, format string, args ...any) {
	c.add(check, "instance "+c.instance.Name, format, args...)
}

func (c *serverCheck) run(ctx context.Context) {
	address, err := c.instance.address()
	if err != nil {
		return // provisioning has refused it
	}
	host := address.Hostname()
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		c.found("dns", "the name %s does not resolve (%v): correct `url`, or add the name to DNS or /etc/hosts", host, dnsReason(err))
		return
	}
	connection, err := c.Dial(ctx)
	if err != nil {
		c.found("connection", "no connection to %s (%v): start the server, correct the port in `url`, or open the firewall", address.Host, reason(err))
		return
	}
	defer func() { _ = connection.Close() }()
	c.checkCertificates(c.TLSConfig().Certificates)
	client, err := handshake(ctx, c.Client, connection, 4*refusalTimeout)
	if err != nil {
		c.found("tls", "%s", tlsProblem(err, c.TLSConfig()))
		return
	}
	if end, soon := endsSoon(client.ConnectionState().PeerCertificates[0]); soon {
		c.found("tls", "the certificate of the server ends on %s: renew it there", end)
	}
	c.checkCommands(ctx)
	if offset := c.offset.Load(); offset != nil && offset.Abs() > maxClockDifference {
		where := "behind"
		if *offset < 0 {
			where = "ahead of"
		}
		c.found("clock", "the clock of this machine is %s %s that of the instance: set up time synchronisation (NTP) where it is wrong",
			offset.Abs().Round(time.Second), where)
	}
}

// endsSoon returns when a certificate ends, and whether that is to be reported.
func endsSoon(c *x509.Certificate) (end string, soon bool) {
	return c.NotAfter.UTC().Format(time.DateTime), time.Until(c.NotAfter) < certificateNotice
}

// checkCertificates checks the end of the gateway's own certificates.
func (c *serverCheck) checkCertificates(own []tls.Certificate) {
	for _, pair := range own {
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			continue
		}
		if end, soon := endsSoon(leaf); soon {
			c.found("tls", "the client certificate of the gateway ends on %s: renew the file in `authentication_servers.tls.client_certificate_file` and run `caddy reload --force`", end)
		}
	}
}

// checkSiteCertificates checks the end of the certificates that the configuration names for
// sites.
func (f *findings) checkSiteCertificates(all []caddytls.Certificate) {
	for _, c := range all {
		leaf, err := x509.ParseCertificate(c.Certificate.Certificate[0])
		if err != nil {
			continue // clients are told
		}
		if end, soon := endsSoon(leaf); soon {
			f.add("tls", "site "+names(leaf), "the certificate ends on %s: renew it where `apps.tls.certificates` has it from and run `caddy reload --force`", end)
		}
	}
}

// tlsProblem returns what to say about a handshake that failed.
func tlsProblem(err error, config *tls.Config) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate of the server is not of an authority that the gateway trusts: put the authority's certificate into `authentication_servers.tls.ca`" + issuer(err)
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the certificate of the server is not for " + config.ServerName + ", but for " + names(wrong.Certificate) +
			": correct `url`, set `authentication_servers.tls.server_name`, or issue another certificate"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return "the certificate of the server is valid from " + invalid.Cert.NotBefore.UTC().Format(time.DateTime) + " to " +
				invalid.Cert.NotAfter.UTC().Format(time.DateTime) + ": renew it, or correct the clock of this machine"
		}
		return "the certificate of the server cannot be used (" + invalid.Error() + "): issue another one"
	}
	if alert := refusalOf(err); alert != "" {
		if len(config.Certificates) == 0 && config.GetClientCertificate == nil {
			return "the server refuses the connection (" + alert + "), and the gateway has no client certificate: " +
				"configure `authentication_servers.tls.client_certificate_file` and `authentication_servers.tls.client_certificate_key_file`"
		}
		return "the server refuses the connection (" + alert + "): check that it trusts the authority of the gateway's client certificate"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS at this port: correct the port in `url`, or switch TLS on at the server"
	}
	return "no TLS handshake (" + reason(err) + "): check that this is the port of the SOAP interface and that the server supports TLS 1.2 or later"
}

// refusalOf returns the alert with which the server ended a handshake, or "".
func refusalOf(err error) string {
	_, alert, found := strings.Cut(err.Error(), "remote error: ")
	if !found {
		return ""
	}
	return alert
}

// issuer returns the name of the authority that is missing, in brackets.
func issuer(err error) string {
	unknown, _ := errors.AsType[x509.UnknownAuthorityError](err)
	if unknown.Cert == nil {
		return ""
	}
	return " (it was issued by " + unknown.Cert.Issuer.String() + ")"
}

// names returns the names of a certificate.
func names(c *x509.Certificate) string {
	all := c.DNSNames
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	return strings.Join(all, ", ")
}

// reason returns the innermost cause of a failed connection.
func reason(err error) string {
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		return operation.Err.Error()
	}
	return err.Error()
}

func dnsReason(err error) string {
	if failed, ok := errors.AsType[*net.DNSError](err); ok {
		return failed.Err
	}
	return err.Error()
}

// Post implements authserver.Transport. It notes the clock of the instance.
func (c *serverCheck) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	response, err := c.Client.Post(ctx, header, command)
	if err == nil {
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			offset := time.Until(date)
			c.offset.Store(&offset)
		}
	}
	return response, err
}

// checkCommands sends a harmless command with each component type.
func (c *serverCheck) checkCommands(ctx context.Context) {
	types := c.servers.ComponentTypes.withDefaults()
	for _, command := range []struct {
		option, name string
		send         func(context.Context, *authserver.Servers) error
	}{
		{"provisioning", types.Provisioning, activateNothing},
		{"authentication", types.Authentication, func(ctx context.Context, s *authserver.Servers) error {
			return retrieveNothing(ctx, s, soap.GetPreparedSecureChallenge)
		}},
		{"signature", types.Signature, func(ctx context.Context, s *authserver.Servers) error {
			return retrieveNothing(ctx, s, soap.GetPreparedSignatureRequest)
		}},
	} {
		err := c.send(ctx, types, command.send)
		refusal, refused := errors.AsType[*authserver.Refusal](err)
		switch {
		case err == nil, refused && refusal.Codes.StatusCodeEnum == notFound:
			continue
		case !refused:
			c.found("connection", "no usable answer to a command (%v): check the path in `url`, `authentication_servers.soap_version`, and that the SOAP interface is enabled", commandReason(err))
			return
		}
		// Which status a server gives a name that it does not know is not public, so the
		// status is compared with that for a name which it cannot know.
		invented := "check " + rand.Text()
		err = c.send(ctx, authserver.ComponentTypes{Provisioning: invented, Authentication: invented, Signature: invented, Notification: invented}, command.send)
		if other, ok := errors.AsType[*authserver.Refusal](err); ok && other.Codes.StatusCodeEnum == refusal.Codes.StatusCodeEnum {
			c.found("component_type", "the server refuses the component type %q (%s), as it does an invented one: "+
				"register a client component of this name for the address of this machine at the server, or correct `authentication_servers.component_types.%s`",
				command.name, refusal.Codes.StatusCodeEnum, command.option)
		}
	}
}

// commandReason returns why there is no usable answer to a command.
func commandReason(err error) error {
	if failed, ok := errors.AsType[*authserver.CallError](err); ok {
		return errors.Join(failed.Reason, failed.Cause)
	}
	return err
}

// send sends a command with the given component types to the instance.
func (c *serverCheck) send(ctx context.Context, types authserver.ComponentTypes, do func(context.Context, *authserver.Servers) error) error {
	address, err := c.instance.address()
	if err != nil {
		return err
	}
	s, err := authserver.New(authserver.Config{
		Instances:   []authserver.Instance{{Name: c.instance.Name, URL: address, Transport: c, MaxConnections: 1}},
		SOAPVersion: c.servers.SOAPVersion, Timeout: checkTimeout, ComponentTypes: types, Attributes: authserver.Attributes(c.servers.Attributes),
	})
	if err != nil {
		return err
	}
	return do(ctx, s)
}

// activateNothing confirms the activation of a random identifier.
func activateNothing(ctx context.Context, s *authserver.Servers) error {
	_, _, err := authserver.Call(ctx, s, authserver.Target{}, soap.MDLActivate, soap.MDLActivateRequest{
		RegistrationID: form.Identifier(rand.Text()), Signature: "0000000000000000",
	})
	return err
}

// retrieveNothing retrieves a request with a random key.
func retrieveNothing(ctx context.Context, s *authserver.Servers, command soap.Command[soap.RetrieveRequest, soap.Retrieved]) error {
	_, _, err := authserver.Call(ctx, s, authserver.Target{}, command, soap.RetrieveRequest{
		SerialNumber: form.SerialNumber("CHK" + rand.Text()[:10] + "-1"), Key: form.PlainKey(rand.Text()),
	})
	return err
}
