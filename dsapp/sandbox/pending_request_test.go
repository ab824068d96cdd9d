package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// A blocked call ends, with its request, when the device cancels, when the timeout is over or
// when the caller closes the connection. synctest fails the test if a goroutine remains.
func TestBlockedCallEnds(t *testing.T) {
	t.Parallel()
	calls := map[string]struct {
		ask              func(t *testing.T, s *Server) (body string)
		kind             Kind
		statusMessage    bool
		retrieve, cancel func(serial, key string) string
	}{
		"push login":     {func(*testing.T, *Server) string { return authUser(password("push")) }, KindLogin, true, retrieveLogin, cancelLogin},
		"push signature": {func(*testing.T, *Server) string { return pushSignature("VDS1000120-1") }, KindSignature, false, retrieveSignature, cancelSignature},
		"scan login": {func(t *testing.T, s *Server) string {
			_, answer := send(t, s, text11, scanLogin())
			return waitForLogin(attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY"))
		}, KindLogin, false, retrieveLogin, cancelLogin},
		"scan signature": {func(t *testing.T, s *Server) string {
			_, answer := send(t, s, text11, scanSignature())
			return waitForSignature(attributeValue(t, answer, "SIGNFLD_REQUEST_KEY"))
		}, KindSignature, false, retrieveSignature, cancelSignature},
	}
	ends := map[string]struct {
		status string // of the blocked call
		end    func(t *testing.T, s *Server, a *Authenticator, b blockedCall, key string, cancel func(serial, key string) string)
	}{
		"cancelled": {"STAT_ERROR", func(t *testing.T, s *Server, a *Authenticator, _ blockedCall, key string, cancel func(serial, key string) string) {
			t.Helper()
			wrapped, err := a.WrapKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := status(t, s, cancel(a.SerialNumber, wrapped)); got != "STAT_SUCCESS" {
				t.Errorf("cancel: %s", got)
			}
		}},
		"timed out": {"STAT_EXP_CHALLENGE", func(t *testing.T, _ *Server, _ *Authenticator, b blockedCall, _ string, _ func(serial, key string) string) {
			t.Helper()
			time.Sleep(time.Minute - time.Nanosecond)
			synctest.Wait()
			if len(b.answer) != 0 {
				t.Error("the call ended before its time")
			}
			time.Sleep(time.Nanosecond)
		}},
		"caller gone": {"STAT_COMMS", func(_ *testing.T, _ *Server, _ *Authenticator, b blockedCall, _ string, _ func(serial, key string) string) {
			b.cancel()
		}},
	}
	for call, c := range calls {
		for end, e := range ends {
			t.Run(call+" "+end, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, a := newServerWithDevice(t)
					b := startBlockedCall(t, s, c.ask(t, s))
					key := s.State().Requests[0].Key
					if got := status(t, s, c.retrieve(a.SerialNumber, key)); got != "STAT_SUCCESS" {
						t.Fatalf("retrieve: %s", got)
					}
					e.end(t, s, a, b, key, c.cancel)
					answer := b.result(t)
					if c.statusMessage && end != "caller gone" {
						// A failed push login with PushKeyword is a success with a status message.
						wantAnswer(t, "the blocked call", answer, golden("aut", `<aut:authUserResponse><authUserResults>`+
							goldenResults("CREDENTIAL-TYPES:CredentialResults",
								attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"),
								attr("string", "sales", "CREDFLD_ORGANIZATIONAL_UNIT"), attr("string", "wrong password", "CREDFLD_STATUS_MESSAGE"))+
							`</authUserResults></aut:authUserResponse>`))
					} else if got := elementValue(t, answer, "statusCodeEnum"); got != e.status {
						t.Errorf("the blocked call: %s, want %s", got, e.status)
					}
					if got := status(t, s, c.cancel(a.SerialNumber, key)); got != "STAT_NOT_FOUND" {
						t.Errorf("cancel after the end: %s", got)
					}
					if state := s.State(); len(state.Requests) != 0 || state.Users[0].WrongPasswords != 0 {
						t.Errorf("state %+v", state)
					}
				})
			})
		}
	}
}

// A blocked call over a real connection ends when its caller closes the connection.
func TestBlockedCallerHangsUp(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := newPushAuthenticator(t, s)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	waitForRequests := func(want int) {
		t.Helper()
		poll.Until(t, fmt.Sprintf("%d requests", want), func() bool { return len(s.State().Requests) == want })
	}

	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	result := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(pushSignature(a.SerialNumber)))
		if err == nil {
			r.Header.Set("Content-Type", text11)
			var response *http.Response
			if response, err = server.Client().Do(r); err == nil {
				response.Body.Close()
			}
		}
		result <- err
	}()
	waitForRequests(1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("the call: %v", err)
	}
	waitForRequests(0)
}

// A request has one outcome, and all calls agree on it, if completion, cancellation and the
// end of the caller coincide.
func TestOneEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s, a := newServerWithDevice(t)
			b := startBlockedCall(t, s, pushSignature(""))
			key := lastKey(t, s, a.SerialNumber)
			_, answer := send(t, s, text11, retrieveSignature(a.SerialNumber, key))
			signature, err := a.Sign(elementValue(t, answer, "requestMessage"))
			if err != nil {
				t.Fatal(err)
			}
			outcomes := make(chan string, 2)
			for _, body := range []string{completeSignature(key, signature), cancelSignature(a.SerialNumber, key)} {
				go func() {
					_, answer := send(t, s, text11, body)
					outcomes <- elementValue(t, answer, "statusCodeEnum")
				}()
			}
			go b.cancel()
			got := []string{<-outcomes, <-outcomes}
			won := slices.Index(got, "STAT_SUCCESS")
			if won >= 0 && got[1-won] != "STAT_NOT_FOUND" {
				t.Errorf("two ends: %v", got)
			}
			if end := elementValue(t, b.result(t), "statusCodeEnum"); (end == "STAT_COMMS") != (won < 0) {
				t.Errorf("the blocked call: %s, the others: %v", end, got)
			}
		})
	}
}

// Requests expire after RequestTimeout by the clock Now, whether a call waits for them or not.
func TestRequestsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := clock.New()
		s := New(Options{
			Users: []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}},
			Now:   c.Now, RequestTimeout: 5 * time.Minute,
		})
		a := newPushAuthenticator(t, s)
		b := startBlockedCall(t, s, pushSignature(""))
		_, answer := send(t, s, text11, scanLogin())
		key := attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY")

		c.Advance(5*time.Minute - time.Second)
		if n := len(s.State().Requests); n != 2 {
			t.Errorf("%d requests before expiry", n)
		}
		c.Advance(time.Second)
		if got := status(t, s, retrieveLogin(a.SerialNumber, key)); got != "STAT_NOT_FOUND" {
			t.Errorf("retrieve after expiry: %s", got)
		}
		if got := elementValue(t, b.result(t), "statusCodeEnum"); got != "STAT_EXP_CHALLENGE" {
			t.Errorf("the blocked call: %s", got)
		}
	})
}

// Only the addressed authenticators can retrieve a request, once, and only the one that has
// retrieved it can cancel or complete it. Keys are valid for one kind, user and server.
func TestRequestOwnership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, first := newServerWithDevice(t)
		second := newPushAuthenticator(t, s)
		b := startBlockedCall(t, s, pushSignature(""))
		key := lastKey(t, s, first.SerialNumber)
		if lastKey(t, s, second.SerialNumber) != key {
			t.Error("two devices got different keys")
		}
		wrap := func(a *Authenticator, key string) string {
			wrapped, err := a.WrapKey(key)
			if err != nil {
				t.Fatal(err)
			}
			return wrapped
		}
		expect := func(what, body, want string) {
			t.Helper()
			if got := status(t, s, body); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		expect("cancel before retrieval, plain", cancelSignature(first.SerialNumber, key), "STAT_NOSUPPORT")
		expect("cancel before retrieval, wrapped", cancelSignature(first.SerialNumber, wrap(first, key)), "STAT_NOSUPPORT")
		expect("retrieve as a login", retrieveLogin(first.SerialNumber, key), "STAT_NOT_FOUND")
		expect("retrieve by a device that does not exist", retrieveSignature("VDS1000120-9", key), "STAT_NOT_FOUND")
		expect("retrieve an unknown key", retrieveSignature(first.SerialNumber, "0000000000x"), "STAT_NOT_FOUND")
		if got := status(t, s.Replica(), retrieveSignature(first.SerialNumber, key)); got != "STAT_NOT_FOUND" {
			t.Errorf("retrieve from a replica: %s", got)
		}
		if got := s.State().Requests[0].RetrievedBy; got != "" {
			t.Errorf("retrieved by %s", got)
		}
		_, answer := send(t, s, text11, retrieveSignature(second.SerialNumber, key))
		message := elementValue(t, answer, "requestMessage")
		if got := s.State().Requests[0].RetrievedBy; got != second.SerialNumber {
			t.Errorf("retrieved by %s", got)
		}
		expect("retrieve by the other device", retrieveSignature(first.SerialNumber, key), "STAT_NOT_FOUND")
		if _, err := first.Open(message); err == nil {
			t.Error("the other device reads the message")
		}

		expect("cancel by the other device", cancelSignature(first.SerialNumber, wrap(first, key)), "STAT_NOSUPPORT")
		expect("cancel by the other device, plain", cancelSignature(first.SerialNumber, key), "STAT_NOSUPPORT")
		expect("cancel with a message of the other device", cancelSignature(second.SerialNumber, wrap(first, key)), "STAT_NOSUPPORT")
		expect("cancel by no device", cancelSignature("VDS1000120-9", wrap(second, key)), "STAT_NOSUPPORT")
		expect("cancel an unknown key, plain", cancelSignature(second.SerialNumber, "0123x"), "STAT_NOT_FOUND")
		expect("cancel an unknown key, wrapped", cancelSignature(second.SerialNumber, wrap(second, "0123x")), "STAT_NOT_FOUND")
		expect("cancel as a login", cancelLogin(second.SerialNumber, wrap(second, key)), "STAT_NOT_FOUND")

		signature, err := second.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		forged := signRequest(first.Secret, KindSignature, s.pending[key].content)
		expect("complete by the other device", completeSignature(key, forged), "STAT_OTP_INCORRECT")
		expect("complete as a login", completeLogin(key, signature), "STAT_NOT_FOUND")
		expect("complete for another user", strings.Replace(completeSignature(key, signature), "jane.doe", "john", 1), "STAT_NOT_FOUND")
		_, answer = send(t, s, text11, completeSignature(key, signature))
		if got := attributeValue(t, answer, "SIGNFLD_SERIAL_NO"); got != second.SerialNumber {
			t.Errorf("signed by %s", got)
		}
		b.result(t)

		_, answer = send(t, s, text11, scanLogin())
		key = attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY")
		if got := attributeValue(t, answer, "CREDFLD_SERIAL_NO"); got != second.SerialNumber {
			t.Errorf("login prepared for %s", got)
		}
		expect("retrieve a login of the other device", retrieveLogin(first.SerialNumber, key), "STAT_NOT_FOUND")
		expect("retrieve a login", retrieveLogin(second.SerialNumber, key), "STAT_SUCCESS")
		_, answer = send(t, s, text11, scanSignature(attr("string", first.SerialNumber, "SIGNFLD_SERIAL_NO")))
		if got := attributeValue(t, answer, "SIGNFLD_SERIAL_NO"); got != first.SerialNumber {
			t.Errorf("signature prepared for %s", got)
		}
	})
}

// The number of pending requests is limited.
func TestPendingLimit(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	newPushAuthenticator(t, s)
	for range maxPending {
		if _, err := s.addRequest(s.users[0], s.users[0].authenticators(), KindLogin, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := status(t, s, scanSignature()); got != "STAT_MEMORY" {
		t.Errorf("one request more: %s", got)
	}
}
