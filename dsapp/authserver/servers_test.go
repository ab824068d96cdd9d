package authserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "open sesame"

var (
	request = soap.MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: secret}

	am1        = strings.Repeat("0A", 2000)
	registered = provisioned(
		attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", am1), attribute("PROVFLD_SERIAL_NO", "VDS1234567"))
)

// peer is an authentication server that counts the commands it got completely.
type peer struct {
	Instance
	arrived atomic.Int64
}

// newPeer starts an HTTPS server that answers each command with handle.
func newPeer(t testing.TB, name string, handle func(w http.ResponseWriter, r *http.Request, command string)) *peer {
	t.Helper()
	p := &peer{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		command, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p.arrived.Add(1)
		handle(w, r, string(command))
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	p.Instance = newTestInstance(t, name, server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	return p
}

func newTestInstance(t testing.TB, name, address string, config *tls.Config) Instance {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return Instance{Name: name, URL: u, Transport: transport, MaxConnections: 4, MaxQueue: 4}
}

// answering handles each command with the same answer.
func answering(text string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ string) {
		write(w, http.StatusOK, "text/xml; charset=utf-8", text)
	}
}

func write(w http.ResponseWriter, status int, media, text string) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// reset closes a connection so that the other side gets an error, not an end.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func hijack(w http.ResponseWriter) net.Conn {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	return c
}

// deadAddress is a URL at which nothing listens.
func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String() + "/"
}

// listen serves each TCP connection with serve.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return "https://" + l.Addr().String() + "/"
}

func newServers(t testing.TB, c Config) *Servers {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.ComponentTypes == (ComponentTypes{}) {
		c.ComponentTypes = ComponentTypes{Provisioning: "My Provisioning", Authentication: "My Authentication", Signature: "My Signature", Notification: "My Notification"}
	}
	if c.Breaker == (breaker.Settings{}) {
		c.Breaker = breaker.Settings{Failures: 1000, Cooldown: 10 * time.Minute} // never
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// registration is the answer to a registration, and the instance that made it.
type registration struct {
	soap.MDLRegistered
	instance string
}

// register registers a user for a multi-device licence.
func register(ctx context.Context, s *Servers, r soap.MDLRegisterRequest) (registration, error) {
	answer, instance, err := Call(ctx, s, Target{}, soap.MDLRegister, r)
	return registration{answer, instance}, err
}

// logIn verifies a password.
func logIn(ctx context.Context, s *Servers, password string) error {
	_, _, err := Call(ctx, s, Target{}, soap.AuthUser, soap.AuthUserRequest{UserID: "jane.doe", Password: password})
	return err
}

// The three commands, end to end, in both SOAP versions.
func TestCommands(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.1", "1.2"} {
		var header http.Header
		var length int64
		p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
			header, length = r.Header, r.ContentLength
			if r.Method != http.MethodPost || r.URL.Path != "/soap" || length != int64(len(command)) {
				t.Errorf("%s %s with length %d for %d bytes", r.Method, r.URL, length, len(command))
			}
			if !strings.Contains(command, "<value xsi:type=\"xsd:string\">My Provisioning</value><attributeID>PROVFLD_COMPONENT_TYPE</attributeID>") {
				t.Errorf("no component type in %s", command)
			}
			switch {
			case strings.Contains(command, "<cmd>PROVISIONCMD_MDL_REGISTER</cmd>"):
				write(w, http.StatusOK, "text/xml", registered)
			case strings.Contains(command, "<cmd>PROVISIONCMD_MDL_ADD_DEVICE</cmd>"):
				write(w, http.StatusOK, "application/soap+xml; charset=UTF-8",
					provisioned(attribute("PROVFLD_SERIAL_NO", "VDS1234567-1"), attribute("PROVFLD_INSTANCE_ACTIVATION_MESSAGE", "0a0B")))
			default:
				write(w, http.StatusOK, "application/xml",
					provisioned(attribute("PROVFLD_USERID", "jane.doe"), attribute("PROVFLD_DOMAIN", "mydomain.com"), attribute("PROVFLD_SERIAL_NO", "VDS1234567")))
			}
		})
		p.URL.Path = "/soap"
		s := newServers(t, Config{Instances: []Instance{p.Instance}, SOAPVersion: version})

		got, err := register(t.Context(), s, request)
		if want := (registration{soap.MDLRegistered{RegistrationID: "aB3dE6gH", ActivationMessage: am1, SerialNumber: "VDS1234567"}, "primary"}); err != nil || got != want {
			t.Errorf("SOAP %s: %+v, %v", version, got, err)
		}
		action, hasAction := header["Soapaction"]
		media := header.Get("Content-Type")
		switch version {
		case "1.1":
			if media != "text/xml; charset=utf-8" || len(action) != 1 || action[0] != `""` {
				t.Errorf("header %v", header)
			}
		case "1.2":
			if media != "application/soap+xml; charset=utf-8" || hasAction {
				t.Errorf("header %v", header)
			}
		}
		if header.Get("Idempotency-Key") != "" || header.Get("X-Idempotency-Key") != "" {
			t.Errorf("header %v makes transports repeat commands", header)
		}

		device, instance, err := Call(t.Context(), s, At("primary"), soap.MDLAddDevice, soap.MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "0123"})
		if want := (soap.MDLDevice{InstanceActivationMessage: "0a0B", SerialNumber: "VDS1234567-1"}); err != nil || device != want || instance != "primary" {
			t.Errorf("SOAP %s: %+v, %v", version, device, err)
		}
		activated, instance, err := Call(t.Context(), s, At("primary"), soap.MDLActivate, soap.MDLActivateRequest{RegistrationID: "aB3dE6gH", Signature: "0123"})
		if want := (soap.Activated{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1234567"}); err != nil || activated != want || instance != "primary" {
			t.Errorf("SOAP %s: %+v, %v", version, activated, err)
		}
		if n := p.arrived.Load(); n != 3 {
			t.Errorf("%d commands arrived", n)
		}
	}
}

// A refusal carries the codes and the stack as they came.
func TestRefusal(t *testing.T) {
	t.Parallel()
	for status, fault := range map[string]bool{
		"STAT_NOT_FOUND": false, "STAT_ERROR": false, "STAT_NEW": false,
		"STAT_COMMS": true, "STAT_MEMORY": true, "STAT_OS_FAILURE": true, "STAT_LICENCE": true,
	} {
		p := newPeer(t, "primary", answering(refused("RET_FAILURE", status, -1, -77,
			"<errorStack><errors><errorCode>-13</errorCode><errorDesc>Fail to retrieve storage key</errorDesc></errors></errorStack>")))
		backup := newPeer(t, "backup", answering(registered))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance, backup.Instance}}), request)
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok {
			t.Errorf("%s: %v", status, err)
			continue
		}
		if refusal.Instance != "primary" || refusal.Codes != soap.FailureCodes(status, -77) ||
			len(refusal.Stack) != 1 || refusal.Stack[0] != (soap.StackEntry{Code: -13, Description: "Fail to retrieve storage key"}) || refusal.BackendFault() != fault {
			t.Errorf("%s: %+v", status, refusal)
		}
		if backup.arrived.Load() != 0 {
			t.Errorf("%s: the backup was asked", status)
		}
	}
}

// checkFailure makes sure of a failure's reason and that it tells no secrets.
func checkFailure(t *testing.T, name string, err error, reasons ...error) *CallError {
	t.Helper()
	failure, ok := errors.AsType[*CallError](err)
	if !ok {
		t.Errorf("%s: %v", name, err)
		return &CallError{}
	}
	matches := 0
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			matches++
		}
	}
	if matches != 1 {
		t.Errorf("%s: %v", name, err)
	}
	for _, value := range []string{secret, "jane.doe", "mydomain.com"} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("%s: %v tells %q", name, err, value)
		}
	}
	return failure
}

// What goes wrong before the command leaves is ErrNotSent.
func TestNotSent(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) Instance{
		"refused": func(t *testing.T) Instance { return newTestInstance(t, "primary", deadAddress(t), nil) },
		"unknown authority": func(t *testing.T) Instance {
			p := newPeer(t, "primary", answering(registered))
			return newTestInstance(t, "primary", p.URL.String(), &tls.Config{RootCAs: x509.NewCertPool()})
		},
		"no TLS": func(t *testing.T) Instance {
			address := listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
			return newTestInstance(t, "primary", address, nil)
		},
		"closed in the handshake": func(t *testing.T) Instance {
			address := listen(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				reset(c)
			})
			return newTestInstance(t, "primary", address, nil)
		},
	} {
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{start(t)}}), request)
		if failure := checkFailure(t, name, err, ErrNotSent); failure.Instance != "primary" || failure.Operation != "PROVISIONCMD_MDL_REGISTER" {
			t.Errorf("%s: %+v", name, failure)
		}
	}
}

// A handshake that never ends is over with the timeout, and still nothing was sent.
func TestNotSentInTime(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	address := listen(t, func(net.Conn) { <-over })
	defer close(over)
	s := newServers(t, Config{Instances: []Instance{newTestInstance(t, "primary", address, nil)}, Timeout: 50 * time.Millisecond})
	_, err := register(t.Context(), s, request)
	checkFailure(t, "hanging handshake", err, ErrNotSent)
}

// The faults of an instance after a command has arrived. Each has its reason, and
// the command goes out once and to no other instance.
func TestFaults(t *testing.T) {
	t.Parallel()
	fault := envelope(`<SOAP-ENV:Fault><faultcode>SOAP-ENV:Server</faultcode><faultstring>no</faultstring></SOAP-ENV:Fault>`)
	for name, test := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request, command string)
		reason error
	}{
		"reset":   {func(w http.ResponseWriter, _ *http.Request, _ string) { reset(hijack(w)) }, ErrNoAnswer},
		"closed":  {func(w http.ResponseWriter, _ *http.Request, _ string) { _ = hijack(w).Close() }, ErrNoAnswer},
		"hanging": {func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }, ErrTimeout},
		"part of the body": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(registered)))
			write(w, http.StatusOK, "text/xml", registered[:len(registered)/2])
		}, ErrNoAnswer},
		"whole body, too short": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(registered)+1))
			write(w, http.StatusOK, "text/xml", registered)
		}, ErrNoAnswer},
		"part of the chunks": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusOK, "text/xml", registered[:len(registered)/2])
			w.(http.Flusher).Flush()
			reset(hijack(w))
		}, ErrNoAnswer},
		"hanging body": {func(w http.ResponseWriter, r *http.Request, _ string) {
			write(w, http.StatusOK, "text/xml", registered[:len(registered)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, ErrTimeout},
		"dripping body": {func(w http.ResponseWriter, r *http.Request, _ string) {
			drip := time.NewTicker(5 * time.Millisecond)
			defer drip.Stop()
			w.Header().Set("Content-Type", "text/xml")
			for i := range registered {
				_, _ = io.WriteString(w, registered[i:i+1])
				w.(http.Flusher).Flush()
				select {
				case <-drip.C:
				case <-r.Context().Done():
					return
				}
			}
		}, ErrTimeout},
		"no HTTP": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			c := hijack(w)
			_, _ = io.WriteString(c, "hello jane.doe, "+secret+"\r\n\r\n")
			_ = c.Close()
		}, ErrNoAnswer},
		"status 500 without XML": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusInternalServerError, "text/html", "<html>jane.doe "+secret+"</html>")
		}, ErrBadAnswer},
		"status 500 without Fault": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusInternalServerError, "text/xml", registered)
		}, ErrBadAnswer},
		"status 500 with Fault": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusInternalServerError, "text/xml", fault)
		}, ErrBadAnswer},
		"status 400 with Fault": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusBadRequest, "application/soap+xml", fault)
		}, ErrBadAnswer},
		"status 200 with Fault": {answering(fault), ErrBadAnswer},
		"status 204":            {func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(http.StatusNoContent) }, ErrBadAnswer},
		"redirect": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, ErrBadAnswer},
		"no media type": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, registered)
		}, ErrBadAnswer},
		"JSON": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusOK, "application/json", registered)
		}, ErrBadAnswer},
		"other character set": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusOK, "text/xml; charset=iso-8859-1", registered)
		}, ErrBadAnswer},
		"other character set, defective parameter": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusOK, "text/xml; charset=iso-8859-1; action", registered)
		}, ErrBadAnswer},
		"other declared character set": {answering(strings.Replace(registered, "UTF-8", "ISO-8859-1", 1)), ErrBadAnswer},
		"empty":                        {answering(""), ErrBadAnswer},
		"oversize":                     {answering(registered + strings.Repeat(" ", 2<<20)), ErrBadAnswer},
		"deep":                         {answering(envelope(strings.Repeat("<a>", 100_000))), ErrBadAnswer},
		"DOCTYPE":                      {answering("<!DOCTYPE a>" + registered), ErrBadAnswer},
		"other operation":              {answering(strings.ReplaceAll(registered, "provisioningExecute", "authUser")), ErrBadAnswer},
		"echo": {func(w http.ResponseWriter, _ *http.Request, command string) {
			write(w, http.StatusOK, "text/xml", command)
		}, ErrBadAnswer},
		"no activation message": {answering(provisioned(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"))), ErrBadAnswer},
		"activation message with the password": {answering(provisioned(
			attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", secret))), ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, "primary", test.handle)
			backup := newPeer(t, "backup", answering(registered))
			timeout := 10 * time.Second
			if test.reason == ErrTimeout {
				timeout = 100 * time.Millisecond
			}
			s := newServers(t, Config{Instances: []Instance{p.Instance, backup.Instance}, Timeout: timeout})
			_, err := register(t.Context(), s, request)
			if failure := checkFailure(t, name, err, test.reason); failure.Instance != "primary" {
				t.Errorf("instance %q", failure.Instance)
			}
			if n := p.arrived.Load(); n != 1 || backup.arrived.Load() != 0 {
				t.Errorf("%d commands at the primary, %d at the backup", n, backup.arrived.Load())
			}
			if running, waiting := s.instances[0].state.limiter.state(); running != 0 || waiting != 0 {
				t.Errorf("%d in progress, %d waiting", running, waiting)
			}
		})
	}
}

// A connection that is reset while the command is on its way: it may have been
// carried out.
func TestResetWhileSending(t *testing.T) {
	t.Parallel()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	defer certificates.Close()
	address := listen(t, func(c net.Conn) {
		s := tls.Server(c, certificates.TLS)
		_, _ = s.Read(make([]byte, 1))
		reset(s)
	})
	config := certificates.Client().Transport.(*http.Transport).TLSClientConfig
	s := newServers(t, Config{Instances: []Instance{newTestInstance(t, "primary", address, config)}})
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
}

// A reused connection that the server resets is no reason to send twice.
func TestReusedConnection(t *testing.T) {
	t.Parallel()
	calls := 0
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		if calls++; calls > 1 {
			reset(hijack(w))
			return
		}
		answering(registered)(w, r, command)
	})
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	if _, err := register(t.Context(), s, request); err != nil {
		t.Fatal(err)
	}
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
	if n := p.arrived.Load(); n != 2 {
		t.Errorf("%d commands arrived", n)
	}
}

// A Fault in an answer reaches the caller with its code.
func TestFaultCause(t *testing.T) {
	t.Parallel()
	text := envelope(`<SOAP-ENV:Fault><faultcode>SOAP-ENV:Client</faultcode><faultstring>bad type of ` + secret + `</faultstring></SOAP-ENV:Fault>`)
	p := newPeer(t, "primary", func(w http.ResponseWriter, _ *http.Request, _ string) {
		write(w, http.StatusInternalServerError, "text/xml", text)
	})
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}}), request)
	checkFailure(t, "Fault", err, ErrBadAnswer)
	fault, ok := errors.AsType[*soap.Fault](err)
	if !ok || *fault != (soap.Fault{Code: "Client", String: "bad type of […]", Sender: true}) {
		t.Errorf("%+v", fault)
	}
}

// A caller that goes away after the command was sent leaves its outcome unknown;
// the log names operation and instance and nothing else.
func TestCanceled(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	p := newPeer(t, "primary", func(_ http.ResponseWriter, r *http.Request, _ string) {
		close(arrived)
		<-r.Context().Done()
	})
	backup := newPeer(t, "backup", answering(registered))
	records := &recorder{}
	s := newServers(t, Config{Instances: []Instance{p.Instance, backup.Instance}, Logger: slog.New(records)})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := register(ctx, s, request)
	checkFailure(t, "canceled", err, ErrNoAnswer)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not say that the caller went away", err)
	}
	if p.arrived.Load() != 1 || backup.arrived.Load() != 0 {
		t.Error("command was repeated")
	}
	want := "WARN outcome of the command is unknown operation=PROVISIONCMD_MDL_REGISTER instance=primary"
	if got := records.at(slog.LevelWarn); len(got) != 1 || got[0] != want {
		t.Errorf("log %q", got)
	}
}

// A caller that is already gone sends nothing, whatever the transport would do.
func TestCanceledBefore(t *testing.T) {
	t.Parallel()
	never := transport(func(*http.Request) (*http.Response, error) {
		t.Error("transport was used")
		return nil, io.EOF
	})
	u := &url.URL{Scheme: "https", Host: "oas1"}
	records := &recorder{}
	s := newServers(t, Config{
		Instances: []Instance{
			{Name: "primary", URL: u, Transport: never, MaxConnections: 1},
			{Name: "backup", URL: u, Transport: never, MaxConnections: 1},
		},
		Logger: slog.New(records),
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := register(ctx, s, request)
	if failure := checkFailure(t, "canceled", err, ErrNotSent); failure.Instance != "primary" || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := records.at(slog.LevelDebug); len(got) != 1 {
		t.Errorf("the next instance was tried: %q", got)
	}
}

// A value that XML cannot carry is refused before any instance is asked.
func TestRefusedValue(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "primary", answering(registered))
	bad := request
	bad.StaticPassword += "\x00"
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}}), bad)
	checkFailure(t, "NUL", err, ErrNotSent)
	if field, ok := errors.AsType[*soap.FieldError](err); !ok || field.Field != "PROVFLD_STATIC_PASSWORD" {
		t.Errorf("%v", err)
	}
	if p.arrived.Load() != 0 {
		t.Error("command was sent")
	}
}

// Only as many commands as allowed are in progress, only as many as allowed wait,
// and all that waited get their turn.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int64
	proceed := make(chan struct{})
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		n := running.Add(1)
		for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
		}
		<-proceed
		running.Add(-1)
		answering(registered)(w, r, command)
	})
	p.MaxConnections, p.MaxQueue = 2, 3
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	limiter := &s.instances[0].state.limiter
	results := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := register(t.Context(), s, request)
			results <- err
		}()
	}
	eventually(t, func() bool { _, waiting := limiter.state(); return p.arrived.Load() == 2 && waiting == 3 })

	_, err := register(t.Context(), s, request)
	checkFailure(t, "queue full", err, ErrNotSent)
	if !errors.Is(err, errQueueFull) {
		t.Errorf("%v", err)
	}
	close(proceed)
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if running, waiting := limiter.state(); most.Load() > 2 || p.arrived.Load() != 5 || running != 0 || waiting != 0 {
		t.Errorf("%d at a time, %d in all, %d in progress, %d waiting", most.Load(), p.arrived.Load(), running, waiting)
	}
}

// Whoever waits too long leaves the queue.
func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		close(arrived)
		<-proceed
		answering(registered)(w, r, command)
	})
	p.MaxConnections, p.MaxQueue = 1, 1
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	first := make(chan error, 1)
	go func() {
		_, err := register(t.Context(), s, request)
		first <- err
	}()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := register(ctx, s, request)
	checkFailure(t, "waiting", err, ErrNotSent)
	if _, waiting := s.instances[0].state.limiter.state(); waiting != 0 {
		t.Errorf("%d waiting", waiting)
	}
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := p.arrived.Load(); n != 1 {
		t.Errorf("%d commands arrived", n)
	}
}

// eventually waits for a state that other goroutines bring about.
func eventually(t *testing.T, reached func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(10 * time.Second)
	for !reached() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("state was not reached")
		}
	}
}

// The first instance is preferred; the next one is tried if nothing was sent. A
// call that belongs to an instance goes nowhere else.
func TestPolicy(t *testing.T) {
	t.Parallel()
	answer := provisioned(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", am1),
		attribute("PROVFLD_INSTANCE_ACTIVATION_MESSAGE", "0A"))
	primary := newPeer(t, "primary", answering(answer))
	backup := newPeer(t, "backup", answering(answer))
	dead := newTestInstance(t, "dead", deadAddress(t), nil)

	s := newServers(t, Config{Instances: []Instance{primary.Instance, backup.Instance}})
	for range 3 {
		if got, err := register(t.Context(), s, request); err != nil || got.instance != "primary" {
			t.Errorf("%q, %v", got.instance, err)
		}
	}
	s = newServers(t, Config{Instances: []Instance{dead, backup.Instance}})
	if got, err := register(t.Context(), s, request); err != nil || got.instance != "backup" {
		t.Errorf("%q, %v", got.instance, err)
	}
	if primary.arrived.Load() != 3 || backup.arrived.Load() != 1 {
		t.Errorf("%d and %d commands", primary.arrived.Load(), backup.arrived.Load())
	}

	device := soap.MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "0123"}
	_, _, err := Call(t.Context(), s, At("dead"), soap.MDLAddDevice, device)
	if failure := checkFailure(t, "own instance is dead", err, ErrNotSent); failure.Instance != "dead" {
		t.Errorf("%+v", failure)
	}
	if _, _, err := Call(t.Context(), s, At("backup"), soap.MDLAddDevice, device); err != nil {
		t.Error(err)
	}
	_, _, err = Call(t.Context(), s, At("gone"), soap.MDLActivate, soap.MDLActivateRequest{RegistrationID: "aB3dE6gH", Signature: "0123"})
	if failure := checkFailure(t, "unknown instance", err, ErrNotSent); failure.Instance != "gone" {
		t.Errorf("%+v", failure)
	}
	if primary.arrived.Load() != 3 || backup.arrived.Load() != 2 {
		t.Errorf("%d and %d commands", primary.arrived.Load(), backup.arrived.Load())
	}
}

// A command that may have been carried out is not reported as not sent because
// the next instance is down.
func TestUnknownOutcomeStays(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "primary", func(w http.ResponseWriter, _ *http.Request, _ string) { reset(hijack(w)) })
	s := newServers(t, Config{Instances: []Instance{p.Instance, newTestInstance(t, "dead", deadAddress(t), nil)}})
	m := methods["updateDevicePNID"]
	_, err := m.call(t.Context(), s, "")
	if failure, ok := errors.AsType[*CallError](err); !ok || failure.Instance != "primary" || failure.Reason != ErrNoAnswer {
		t.Errorf("%v", err)
	}
}

// Each command names the component of its family.
func TestComponentTypes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"REGISTER": "My Provisioning", "authUser (OTP)": "My Authentication", "getPreparedSignatureRequest": "My Signature", "updateDevicePNID": "My Notification",
	} {
		got := make(chan string, 1)
		p := newPeer(t, "primary", func(_ http.ResponseWriter, _ *http.Request, command string) { got <- command })
		s := newServers(t, Config{Instances: []Instance{p.Instance}})
		_, err := methods[name].call(t.Context(), s, "")
		checkFailure(t, want, err, ErrBadAnswer)
		if command := <-got; !strings.Contains(command, ">"+want+"<") {
			t.Errorf("no %s in %s", want, command)
		}
	}
}

// An HTTP/2 connection works as well, and a stream reset by the server after it
// saw the command is not repeated.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	arrived := atomic.Int64{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		arrived.Add(1)
		if r.ProtoMajor != 2 {
			t.Errorf("protocol %s", r.Proto)
		}
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		write(w, http.StatusOK, "text/xml", registered)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	in := newTestInstance(t, "primary", server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	in.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	s := newServers(t, Config{Instances: []Instance{in}})
	if _, err := register(t.Context(), s, request); err != nil {
		t.Error(err)
	}
	broken.Store(true)
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
	if n := arrived.Load(); n != 2 {
		t.Errorf("%d commands arrived", n)
	}
}

// One server has one address, however it is written; what is none is not shown.
func TestURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://OAS1.example:8888":   "https://oas1.example:8888/",
		"https://[2001:DB8::1]/soap":  "https://[2001:db8::1]/soap",
		"http://oas1:8888/":           "must be an address such as https://host:8888/",
		"https://":                    "must be an address such as https://host:8888/",
		"https://oas1:8888/ ":         "must have no white space",
		"https://bücher.example/":     "must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example",
		"https://\u212Aiel.example/":  "must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example",
		"https://me:SECRET@oas1:8888": "must have no user, query or fragment",
		"https://oas1/?a=SECRET":      "must have no user, query or fragment",
		"https://oas1:0/":             "must have a port from 1 to 65535, or none",
		"https://oas1:65536/":         "must have a port from 1 to 65535, or none",
	} {
		u, err := ParseURL(text)
		if err == nil {
			_, err = New(Config{Timeout: time.Second, Instances: []Instance{{Name: "primary", URL: u, Transport: &http.Transport{}, MaxConnections: 1}}})
		}
		wrong, refused := errors.AsType[*option.Error](err)
		if refused && (wrong.Problem != want || !strings.HasSuffix(wrong.Name, "url")) || !refused && u.String() != want {
			t.Errorf("%s: %v, error %v", text, u, err)
		}
	}
}

// A configuration that cannot work is refused at once.
func TestNew(t *testing.T) {
	t.Parallel()
	address := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	good := Instance{Name: "primary", URL: address("https://oas1:8888/"), Transport: &http.Transport{}, MaxConnections: 1}
	for problem, change := range map[string]func(c *Config){
		"instances: at least":                               func(c *Config) { c.Instances = nil },
		"instances[0].name: must have 1 to 64 letters":      func(c *Config) { c.Instances[0].Name = "" },
		"instances[0].name: must have 1 to 64":              func(c *Config) { c.Instances[0].Name = "a;b" },
		"letters, digits, dots":                             func(c *Config) { c.Instances[0].Name = strings.Repeat("x", 65) },
		"instances[1].name: is the name of an earlier":      func(c *Config) { c.Instances = append(c.Instances, good) },
		"transport is missing":                              func(c *Config) { c.Instances[0].Transport = nil },
		"max_connections: must be from 1":                   func(c *Config) { c.Instances[0].MaxConnections = 0 },
		"max_queue: must be from 0":                         func(c *Config) { c.Instances[0].MaxQueue = -1 },
		"reserved_connections: must be from 0 to 0":         func(c *Config) { c.Instances[0].ReservedConnections = 1 },
		"reserved_connections: must":                        func(c *Config) { c.Instances[0].ReservedConnections = -1 },
		"max_waiting: must be from 1 to 1":                  func(c *Config) { c.Instances[0].MaxWaiting = -1 },
		"soap_version: must be":                             func(c *Config) { c.SOAPVersion = "2" },
		"timeout: must be":                                  func(c *Config) { c.Timeout = 0 },
		"deployment: must be":                               func(c *Config) { c.Deployment = "shared" },
		"policy: must be":                                   func(c *Config) { c.Policy = "random" },
		"component_types.authentication: must have":         func(c *Config) { c.ComponentTypes.Authentication = strings.Repeat("x", 61) },
		"component_types.provisioning: must have":           func(c *Config) { c.ComponentTypes.Provisioning = "\x00" },
		"attributes.instance_activation_message: must have": func(c *Config) { c.Attributes.InstanceActivationMessage = "<a>" },
	} {
		c := Config{Instances: []Instance{good}, Timeout: time.Second}
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", problem, err)
		}
	}
	if _, err := New(Config{Instances: []Instance{good}, Timeout: time.Second}); err != nil {
		t.Error(err)
	}
}
