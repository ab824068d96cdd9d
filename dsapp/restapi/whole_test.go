package restapi

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// memberProblems matches every text that the gateway uses in an errorDescription after
// the name of a member. None of them has room for a value from the request.
var memberProblems = regexp.MustCompile(`\A(is missing|occurs twice|must be a string|must not be empty( without a derivation code)?|is not hexadecimal|is out of range|is too long|must be spelt exactly like that` +
	`|must have \d{1,2} to \d{1,4} characters|must not have more than 255 characters|must not be longer than (128|255) (characters|bytes in UTF-8)` +
	`|must not contain (control characters|a semicolon)|must consist of (A-Z, a-z and 0-9|A-Z, a-z, 0-9 and '-'|A-Z, a-z, 0-9, '\.', '_' and '-'|a-z|hexadecimal digits|decimal digits|printable characters of ASCII without spaces)` +
	`|must be an even number of hex digits, at least 2|must be 1 to 64 characters of A-Z, a-z and 0-9, or an even number of hex digits, at least 32` +
	`|must be left out with a response|must be "mdl" or "standard"|is for licence type "standard" only|must be the name of a profile that the gateway offers)\z`)

// newWholeHandler returns a Handler with a real gateway, a real store and a simulated
// authentication server behind it. Only the network is missing.
func newWholeHandler(tb testing.TB) *Handler {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	user := sandbox.User{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password", Licenses: 50, StandardLicenses: 50}
	server := sandbox.New(sandbox.Options{Users: []sandbox.User{user}, DescriptionAttribute: "PROVFLD_DESCRIPTION"})
	servers, err := authserver.New(authserver.Config{
		Instances: []authserver.Instance{{Name: "primary", URL: &url.URL{Scheme: "https", Host: "oas.example.com", Path: "/"}, Transport: inProcess{server}, MaxConnections: 4}},
		Timeout:   poll.Patience,
		ComponentTypes: authserver.ComponentTypes{
			Provisioning: sandbox.DefaultComponentType, Authentication: sandbox.PushComponentType,
			Signature: sandbox.PushComponentType, Notification: sandbox.PushComponentType,
		},
		Attributes: authserver.Attributes{DeviceDescription: "PROVFLD_DESCRIPTION"},
	})
	must(err)
	store, err := embedded.Open(filepath.Join(tb.TempDir(), "dsapp.db"), embedded.Options{})
	must(err)
	tb.Cleanup(func() { must(store.Close()) })
	ring, err := seal.NewKeyring(bytes.Repeat([]byte{7}, 32))
	must(err)
	profile, err := srp.LookupProfile(srp.DefaultProfile)
	must(err)
	registrations, err := activation.New(activation.Config{
		Open:     func(context.Context) (activation.Store, *seal.Keyring, error) { return store, ring, nil },
		Profiles: []activation.Profile{profile},
	})
	must(err)
	requests, err := ownership.New(ownership.Config{
		Open: func(context.Context) (ownership.Store, *seal.Keyring, error) { return store, ring, nil },
	})
	must(err)
	operations, err := gateway.New(gateway.Config{
		Activation: registrations, Ownership: requests, Servers: servers, UnknownRegistrations: gateway.ForwardUnknown,
	})
	must(err)
	h, _ := newHandler(tb, func(c *Config) { c.Operations = operations })
	// A registration for an activation exchange.
	_, err = registrations.Register(tb.Context(), activation.Registration{
		Identifier: "e3wfISG9", Kind: activation.KindMDL, Subject: form.Subject{UserID: user.Name, Domain: user.Domain, SerialNumber: "VDS1000003", Instance: "primary"},
		Data: activation.ActivationData{ActivationMessage: "00C1"}, Started: time.Now(),
	})
	must(err)
	return h
}

// inProcess is a transport to a server in the same process. It answers requests that are
// not well-formed XML with status 418.
type inProcess struct{ server http.Handler }

func (inProcess) CloseIdleConnections() {}

func (p inProcess) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	for d := xml.NewDecoder(bytes.NewReader(command)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			// The gateway answers with status 502 then, which fails the test.
			return &http.Response{StatusCode: http.StatusTeapot, Header: http.Header{}, Body: http.NoBody}, nil //nolint:nilerr // see above
		}
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(command))
	r.Header = header.Clone()
	w := httptest.NewRecorder()
	p.server.ServeHTTP(w, r)
	return w.Result(), nil
}

// A complete gateway answers any body for any service with status 200 or 400: no body
// makes the gateway fail or send malformed XML to an authentication server. The
// errorDescription contains nothing from the body.
func FuzzWholeGateway(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body))
	}
	zero, one := `{"registrationIdentifier":"e3wfISG9","clientEphemeralPublicKey":"0"}`, `{"registrationID":"unknown","clientEphemeralPublicKey":"`+strings.Repeat("f", 512)+`"}`
	for _, body := range append(hostileBodies(), zero, one,
		`{"userID":"`+strings.Repeat("ü", 200)+`","staticPassword":"x"}`,
		`{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"a static password","licenseType":"standard","serialNumber":"VDS1"}`,
		`{"registrationIdentifier":"e3wfISG9","deviceCode":"`+strings.Repeat("9", 64)+`","description":"\u0000\ufffe]]>&<\u2028\ud83d\ude00"}`,
		`{"userID":"]]>&<a>\"'","domain":"<!DOCTYPE a>","password":"&#0;","otp":"\t","challengeKey":"1","requestKey":"1","signature":"1"}`,
		`{"userID":"jane.doe","tomain":"mydomain.com","password":"123456","Goal":"x","Otp":"1"}`,
		`{"registrationID":"AAAA","signature":"1","deviceCode":"1","clientEvidenceMessage":"`+evidence+`","clientEphemeralPublicKey":"`+strings.Repeat("a", 513)+`"}`,
	) {
		f.Add([]byte(body))
	}
	h := newWholeHandler(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > DefaultMaxBodySize {
			return
		}
		for path, service := range services {
			key := map[bool]string{true: backKey, false: frontKey}[service.classes == "back_end"]
			var w *httptest.ResponseRecorder
			// Some calls of the store have fixed deadlines, which a slow machine may miss.
			poll.Until(t, "an answer of the store", func() bool {
				w = httptest.NewRecorder()
				h.ServeHTTP(w, newRequest(path, key, string(body)))
				return w.Code != http.StatusServiceUnavailable
			})
			a := readAnswer(t, service.shape, w.Body.Bytes())
			switch w.Code {
			case http.StatusOK:
				if a.hasDescription || a.returnCode != 0 && len(a.result) > 0 {
					t.Fatalf("%s: answer %s", path, w.Body)
				}
			case http.StatusBadRequest:
				name, problem, _ := strings.Cut(a.description, " ")
				members := strings.Fields(strings.ReplaceAll(service.request, "?", ""))
				if !slices.Contains(bodyProblems, a.description) && (!slices.Contains(members, name) || !memberProblems.MatchString(problem)) {
					t.Fatalf("%s: answer %s", path, w.Body)
				}
			default:
				t.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
			}
		}
	})
}
