package restapi

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
)

// A request for a path that is no service is passed on unchanged if its key is valid.
func TestNext(t *testing.T) {
	t.Parallel()
	errNext := errors.New("next")
	type passedRequest struct {
		authorization, body string
		err                 error
	}
	seen := make(chan passedRequest, 1)
	g := newTestServer(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			err := h.Serve(w, r, func(w http.ResponseWriter, r *http.Request) (bool, error) {
				body, _ := io.ReadAll(r.Body)
				seen <- passedRequest{authorization: r.Header.Get("Authorization"), body: string(body)}
				w.WriteHeader(http.StatusTeapot)
				return false, errNext
			})
			if err != nil {
				p := <-seen
				p.err = err
				seen <- p
			}
		}
	})
	for _, path := range []string{
		"/", "/register", "/rest/v2/provisioning/DSAPPRegister", "/rest/v2/notification/push/sendNotification", "/rest/v2/provisioning", "/rest/v2//x/",
		"/x/rest/v2/provisioning/MdlActivate", "/rest/v2/provisioning/MdlActivate/x", "/rest/v2/./provisioning/MdlActivates",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
			r := newRequest(path, frontKey, "not JSON", func(r *http.Request) { r.Method = method })
			if got := g.do(r); got.status != http.StatusTeapot {
				t.Fatalf("%s %s: answer is %+v", method, path, got)
			}
			if got, want := <-seen, (passedRequest{r.Header.Get("Authorization"), "not JSON", errNext}); got != want {
				t.Errorf("%s %s: next got %+v, want %+v", method, path, got, want)
			}
			if want := (Observation{Application: "mobile-app", Outcome: PassedOn}); g.last() != want {
				t.Errorf("%s %s: observed %+v, want %+v", method, path, g.last(), want)
			}
		}
		for key, status := range map[string]int{"": 401, "EXAMPLE-WRONG-KEY": 401, farKey: 403} {
			got := g.call(path, key, "not JSON")
			if got.status != status {
				t.Errorf("%s with key %q: status is %d, want %d", path, key, got.status, status)
			}
		}
	}
	if len(seen) != 0 {
		t.Error("next got a request without a valid key")
	}
}

// A request that next does not handle is answered with 404 and observed once.
func TestNextThatDoesNotHandle(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) { return false, nil }); err != nil {
				t.Error(err)
			}
		}
	})
	wantFailure(t, g.call("/rest/v2/provisioning/Unknown", frontKey, "x"), V2, 404, "STAT_NOT_FOUND", -13, -1)
	if want := (Observation{Application: "mobile-app", Outcome: NotFound, HTTPStatus: 404, Status: "STAT_NOT_FOUND"}); g.last() != want || len(g.observations) != 1 {
		t.Errorf("observed %+v, want %+v once", g.observations, want)
	}
}

// The path decides in which version a 404 is answered.
func TestNotFoundShape(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	for path, v := range map[string]Version{
		"/rest/activation/Unknown": V1, "/rest/auth": V1, "/rest/push/": V1, "/rest/notification/x": V1,
		"/rest/": V2, "/rest": V2, "/rest/v2": V2, "/rest/v3/x": V2, "/rest/authentication/x": V2, "/rest/pushed": V2,
		"/rest/v2/": V2, "/rest/v2/provisioning/Unknown": V2, "/unknown": V2, "/": V2,
	} {
		wantFailure(t, g.call(path, frontKey, "x"), v, 404, "STAT_NOT_FOUND", -13, -1)
	}
}

// The observed duration of a request includes the handler that answers it.
func TestDuration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var observed []Observation
		h, _ := newHandler(t, func(c *Config) {
			c.Authenticated = func(*http.Request, apikey.Key) { time.Sleep(time.Second) }
			c.Observe = func(_ *http.Request, o Observation) { observed = append(observed, o) }
		})
		for _, path := range []string{"/rest/v2/provisioning/getServerTime", "/elsewhere"} {
			err := h.Serve(httptest.NewRecorder(), newRequest(path, frontKey, ""), func(http.ResponseWriter, *http.Request) (bool, error) {
				time.Sleep(2 * time.Second)
				return true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(observed) != 2 || observed[0].Duration != time.Second || observed[1].Duration != 3*time.Second {
			t.Errorf("observed %+v", observed)
		}
	})
}
