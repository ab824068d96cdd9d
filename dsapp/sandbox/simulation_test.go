package sandbox

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

func newTestServer(users ...User) (*Server, *clock.Clock) {
	c := clock.New()
	users = append([]User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}}, users...)
	return New(Options{Users: users, Now: c.Now, SerialStart: 1000120}), c
}

// startActivation registers jane.doe and returns the registration ID and Activation
// Message 1.
func startActivation(t testing.TB, s *Server) (id, am1 string) {
	t.Helper()
	_, answer := send(t, s, text11, registerRequest)
	return attributeValue(t, answer, "PROVFLD_REGISTRATIONID"), attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE")
}

// newAuthenticator activates the next device of jane.doe and returns its authenticator,
// whose notification ID the server does not know.
func newAuthenticator(t testing.TB, s *Server) *Authenticator {
	t.Helper()
	id, am1 := startActivation(t, s)
	d := NewDevice(1)
	code, err := d.ActivateLicense(am1)
	if err != nil {
		t.Fatal(err)
	}
	_, answer := send(t, s, text11, addDevice(id, code))
	signature, err := d.ActivateInstance(attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"))
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, activate(id, signature)); got != "STAT_SUCCESS" {
		t.Fatalf("activate: %s", got)
	}
	a, err := d.Authenticator("jane.doe", "mydomain.com")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newPushAuthenticator returns an authenticator that gets push notifications.
func newPushAuthenticator(t testing.TB, s *Server) *Authenticator {
	t.Helper()
	a := newAuthenticator(t, s)
	message, err := a.WrapNotificationID("device of " + a.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, updateNotificationID(a.SerialNumber, message)); got != "STAT_SUCCESS" {
		t.Fatalf("updateDevicePNID: %s", got)
	}
	return a
}

// newServerWithDevice returns a server and an authenticator for a bubble of synctest.
func newServerWithDevice(t *testing.T) (*Server, *Authenticator) {
	t.Helper()
	s := New(Options{
		Users: []User{
			{Name: "jane.doe", Domain: "mydomain.com", OrganizationalUnit: "sales", StaticPassword: "s&cret"},
			{Name: "john", Domain: "mydomain.com", StaticPassword: "p"},
		},
		SerialStart: 1000120,
	})
	return s, newPushAuthenticator(t, s)
}

// lastKey returns the key of the last push notification.
func lastKey(t *testing.T, s *Server, serial string) string {
	t.Helper()
	pushes := s.Pushes(serial)
	if len(pushes) == 0 {
		t.Fatal("nothing was pushed")
	}
	return pushes[len(pushes)-1].Key
}

// blockedCall is a call of an application server that blocks.
type blockedCall struct {
	cancel context.CancelFunc
	answer chan string
}

// startBlockedCall sends a request and returns when the server blocks it. It needs a bubble
// of synctest.
func startBlockedCall(t *testing.T, h http.Handler, body string) blockedCall {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	b := blockedCall{cancel, make(chan string, 1)}
	go func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", text11)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		b.answer <- w.Body.String()
	}()
	synctest.Wait()
	if len(b.answer) != 0 {
		t.Fatalf("the call does not block: %s", <-b.answer)
	}
	return b
}

// result returns the answer. It fails the test if the call still blocks.
func (b blockedCall) result(t *testing.T) string {
	t.Helper()
	synctest.Wait()
	if len(b.answer) == 0 {
		t.Fatal("the call still blocks")
	}
	return <-b.answer
}
