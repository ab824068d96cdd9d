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
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// A Refusal contains the codes and the error stack of the answer unchanged.
func TestRefusal(t *testing.T) {
	t.Parallel()
	for status, fault := range map[string]bool{
		"STAT_NOT_FOUND": false, "STAT_ERROR": false, "STAT_NEW": false,
		"STAT_COMMS": true, "STAT_MEMORY": true, "STAT_OS_FAILURE": true, "STAT_LICENCE": true,
	} {
		in := stub("primary", sending(answering(refused("RET_FAILURE", status, -1, -77,
			"<errorStack><errors><errorCode>-13</errorCode><errorDesc>Fail to retrieve storage key</errorDesc></errors></errorStack>"))))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok {
			t.Errorf("%s: %v", status, err)
			continue
		}
		if refusal.Instance != "primary" || refusal.Codes != soap.FailureCodes(status, -77) ||
			!slices.Equal(refusal.Stack, []soap.StackEntry{{Code: -13, Description: "Fail to retrieve storage key"}}) || refusal.BackendFault() != fault {
			t.Errorf("%s: %+v", status, refusal)
		}
	}
}

// Every failure to make a connection is ErrNotSent.
func TestNotSent(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) Instance{
		"refused": func(t *testing.T) Instance { return newTestInstance(t, "primary", deadAddress(t), new(tls.Config)) },
		"unknown authority": func(t *testing.T) Instance {
			p := newPeer(t, "primary", answering(registered))
			return newTestInstance(t, "primary", p.URL.String(), &tls.Config{RootCAs: x509.NewCertPool()})
		},
		"no TLS": func(t *testing.T) Instance {
			address := listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
			return newTestInstance(t, "primary", address, new(tls.Config))
		},
		"closed in the handshake": func(t *testing.T) Instance {
			address := listen(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				reset(c)
			})
			return newTestInstance(t, "primary", address, new(tls.Config))
		},
	} {
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{start(t)}}), request)
		if failure := checkFailure(t, name, err, ErrNotSent); failure.Instance != "primary" || failure.Operation != "PROVISIONCMD_MDL_REGISTER" {
			t.Errorf("%s: %+v", name, failure)
		}
	}
}

// A TLS handshake that the server does not continue is ErrNotSent, too, after the timeout.
func TestNotSentInTime(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	address := listen(t, func(net.Conn) { <-end })
	defer close(end)
	s := newServers(t, Config{Instances: []Instance{newTestInstance(t, "primary", address, new(tls.Config))}, Timeout: 50 * time.Millisecond})
	_, err := register(t.Context(), s, request)
	checkFailure(t, "hanging handshake", err, ErrNotSent)
}

// Every failure after an instance has received the command has its reason. The command is sent
// once and to no other instance.
func TestFailures(t *testing.T) {
	t.Parallel()
	fault := envelope(`<SOAP-ENV:Fault><faultcode>SOAP-ENV:Server</faultcode><faultstring>no</faultstring></SOAP-ENV:Fault>`)
	const xml = "text/xml"
	for name, test := range map[string]struct {
		handle handler
		reason error
	}{
		"reset":  {func(w http.ResponseWriter, _ *http.Request, _ string) { reset(hijack(w)) }, ErrNoAnswer},
		"closed": {func(w http.ResponseWriter, _ *http.Request, _ string) { _ = hijack(w).Close() }, ErrNoAnswer},
		"part of the body": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(registered)))
			write(w, http.StatusOK, xml, registered[:len(registered)/2])
		}, ErrNoAnswer},
		"whole body, too short": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(registered)+1))
			write(w, http.StatusOK, xml, registered)
		}, ErrNoAnswer},
		"part of the chunks": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusOK, xml, registered[:len(registered)/2])
			w.(http.Flusher).Flush()
			reset(hijack(w))
		}, ErrNoAnswer},
		"no HTTP": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			c := hijack(w)
			_, _ = io.WriteString(c, "hello jane.doe, "+secret+"\r\n\r\n")
			_ = c.Close()
		}, ErrNoAnswer},
		"status 500 without XML":   {writing(http.StatusInternalServerError, "text/html", "<html>jane.doe "+secret+"</html>"), ErrBadAnswer},
		"status 500 without Fault": {writing(http.StatusInternalServerError, xml, registered), ErrBadAnswer},
		"status 500 with Fault":    {writing(http.StatusInternalServerError, xml, fault), ErrBadAnswer},
		"status 400 with Fault":    {writing(http.StatusBadRequest, "application/soap+xml", fault), ErrBadAnswer},
		"status 200 with Fault":    {answering(fault), ErrBadAnswer},
		"status 204":               {func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(http.StatusNoContent) }, ErrBadAnswer},
		"redirect": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, ErrBadAnswer},
		"no media type": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, registered)
		}, ErrBadAnswer},
		"JSON":                                 {writing(http.StatusOK, "application/json", registered), ErrBadAnswer},
		"other charset":                        {writing(http.StatusOK, "text/xml; charset=iso-8859-1", registered), ErrBadAnswer},
		"other charset, malformed parameter":   {writing(http.StatusOK, "text/xml; charset=iso-8859-1; action", registered), ErrBadAnswer},
		"other encoding in the XML":            {answering(strings.Replace(registered, "UTF-8", "ISO-8859-1", 1)), ErrBadAnswer},
		"empty":                                {answering(""), ErrBadAnswer},
		"oversize":                             {answering(registered + strings.Repeat(" ", 2<<20)), ErrBadAnswer},
		"deep":                                 {answering(envelope(strings.Repeat("<a>", 100_000))), ErrBadAnswer},
		"DOCTYPE":                              {answering("<!DOCTYPE a>" + registered), ErrBadAnswer},
		"other operation":                      {answering(strings.ReplaceAll(registered, "provisioningExecute", "authUser")), ErrBadAnswer},
		"echo":                                 {func(w http.ResponseWriter, _ *http.Request, command string) { write(w, http.StatusOK, xml, command) }, ErrBadAnswer},
		"no activation message":                {answering(provisioned(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"))), ErrBadAnswer},
		"activation message with the password": {answering(provisioned(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", secret))), ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, "primary", test.handle)
			backup := &switchable{does: dropping}
			s := newServers(t, Config{Instances: []Instance{p.Instance, stub("backup", backup)}})
			_, err := register(t.Context(), s, request)
			if failure := checkFailure(t, name, err, test.reason); failure.Instance != "primary" {
				t.Errorf("instance %q", failure.Instance)
			}
			if n := p.received.Load(); n != 1 || backup.count() != 0 {
				t.Errorf("%d commands at the primary, %d at the backup", n, backup.count())
			}
			if running, waiting := s.instances[0].state.limiter.state(); running != 0 || waiting != 0 {
				t.Errorf("%d in progress, %d waiting", running, waiting)
			}
		})
	}
}

// slow is a body of which every byte takes some time to arrive.
type slow struct {
	ctx  context.Context
	body io.Reader
	each time.Duration
}

func (s *slow) Read(b []byte) (int, error) {
	if !sleep(s.ctx, s.each) {
		return 0, s.ctx.Err()
	}
	return s.body.Read(b[:1])
}

func (*slow) Close() error { return nil }

// The timeout covers the whole answer, whether nothing arrives, only a part, or all of it but
// too slowly. An answer in time is a success, however slow.
func TestTimeout(t *testing.T) {
	t.Parallel()
	slowly := func(each time.Duration) transport {
		return func(r *http.Request) (*http.Response, error) {
			response, err := sending(answering(registered))(r)
			response.Body = &slow{r.Context(), response.Body, each}
			return response, err
		}
	}
	allBytes := time.Duration(len(registered) + 1) // with the end of the body
	for name, test := range map[string]struct {
		does   transport
		reason error
	}{
		"no answer":        {hanging, ErrTimeout},
		"no body":          {slowly(time.Hour), ErrTimeout},
		"body too slow":    {slowly(time.Minute/allBytes + time.Millisecond), ErrTimeout},
		"body just inside": {slowly(time.Minute/allBytes - time.Millisecond), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServers(t, Config{Instances: []Instance{stub("primary", test.does)}, Timeout: time.Minute})
			start := time.Now()
			_, err := register(t.Context(), s, request)
			if test.reason == nil {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				return
			}
			checkFailure(t, name, err, test.reason)
			if took := time.Since(start); took != time.Minute {
				t.Errorf("%s: ends after %v", name, took)
			}
		})
	}
}

// The error after a Fault wraps the *soap.Fault, in whose texts the values of the command are
// replaced.
func TestFaultCause(t *testing.T) {
	t.Parallel()
	text := envelope(`<SOAP-ENV:Fault><faultcode>SOAP-ENV:Client</faultcode><faultstring>bad type of ` + secret + `</faultstring></SOAP-ENV:Fault>`)
	in := stub("primary", sending(writing(http.StatusInternalServerError, "text/xml", text)))
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
	checkFailure(t, "Fault", err, ErrBadAnswer)
	fault, ok := errors.AsType[*soap.Fault](err)
	if !ok || *fault != (soap.Fault{Code: "Client", String: "bad type of […]", Sender: true}) {
		t.Errorf("%+v", fault)
	}
}

// If the caller leaves after the command was sent, its outcome is unknown. The log names the
// operation and the instance and nothing else.
func TestCanceled(t *testing.T) {
	t.Parallel()
	received := make(chan struct{})
	p := newPeer(t, "primary", func(_ http.ResponseWriter, r *http.Request, _ string) {
		close(received)
		<-r.Context().Done()
	})
	backup := &switchable{does: sending(answering(registered))}
	records := &recorder{}
	s := newServers(t, Config{Instances: []Instance{p.Instance, stub("backup", backup)}, Logger: slog.New(records)})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-received
		cancel()
	}()
	_, err := register(ctx, s, request)
	checkFailure(t, "canceled", err, ErrNoAnswer)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not wrap context.Canceled", err)
	}
	if p.received.Load() != 1 || backup.count() != 0 {
		t.Error("command was repeated")
	}
	want := "WARN outcome of the command is unknown operation=PROVISIONCMD_MDL_REGISTER instance=primary"
	if got := records.at(slog.LevelWarn); len(got) != 1 || got[0] != want {
		t.Errorf("log %q", got)
	}
}

// If the caller has left already, nothing is sent and only one instance is tried.
func TestCanceledBefore(t *testing.T) {
	t.Parallel()
	never := transport(func(*http.Request) (*http.Response, error) {
		t.Error("transport was used")
		return nil, io.EOF
	})
	records := &recorder{}
	s := newServers(t, Config{Instances: []Instance{stub("primary", never), stub("backup", never)}, Logger: slog.New(records)})
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

// A value that XML cannot represent is refused before any instance is asked.
func TestRefusedValue(t *testing.T) {
	t.Parallel()
	in := &switchable{does: sending(answering(registered))}
	bad := request
	bad.StaticPassword += "\x00"
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{stub("primary", in)}}), bad)
	checkFailure(t, "NUL", err, ErrNotSent)
	if field, ok := errors.AsType[*soap.FieldError](err); !ok || field.Field != "PROVFLD_STATIC_PASSWORD" {
		t.Errorf("%v", err)
	}
	if in.count() != 0 {
		t.Error("command was sent")
	}
}
