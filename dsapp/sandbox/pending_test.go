package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Requests as the interface describes them, with nothing of them made by the code
// under test.

// envelope wraps the content of an operation element; prefix names the scenario.
func envelope(prefix, operation, content string) string {
	scenario := map[string]string{"aut": "Authentication", "sig": "Signature", "prov": "Provisioning"}[prefix]
	return `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:` + prefix + `="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/` + scenario + `">
  <soapenv:Body><` + prefix + ":" + operation + ">" + content + "</" + prefix + ":" + operation + `></soapenv:Body>
</soapenv:Envelope>`
}

const (
	pushComponent = `<componentType>Push Notification Client</componentType>`
	janeElement   = `<user><userID>jane.doe</userID><domain>mydomain.com</domain></user>`
	dummyField    = `<dataFieldList><dataField><key>k</key><value>v</value></dataField></dataFieldList>`
)

// authUser names jane.doe and takes further attributes.
func authUser(attributes ...string) string {
	return envelope("aut", "authUser", `<credentialAttributeSet>`+
		attr("string", "Push Notification Client", "CREDFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "CREDFLD_USERID")+
		attr("string", "mydomain.com", "CREDFLD_DOMAIN")+
		attr("unsignedInt", "0", "CREDFLD_PASSWORD_FORMAT")+
		strings.Join(attributes, "")+`</credentialAttributeSet>`)
}

func password(p string) string { return attr("string", p, "CREDFLD_PASSWORD") }

func completeLogin(key, signature string) string {
	return authUser(attr("string", key, "CREDFLD_CHALLENGE_KEY"), password(signature))
}

func scanLogin() string {
	return envelope("aut", "getSecureChallenge", `<credentialAttributeSet>`+
		attr("string", "Push Notification Client", "CREDFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "CREDFLD_USERID")+
		attr("string", "to the shop", "CREDFLD_CHALLENGE_MESSAGE")+`</credentialAttributeSet>`)
}

func waitForLogin(key string) string {
	return authUser(attr("string", key, "CREDFLD_CHALLENGE_KEY"))
}

func retrieveLogin(serial, key string) string {
	return envelope("aut", "getPreparedSecureChallenge",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><challengeKey>`+key+`</challengeKey>`)
}

func cancelLogin(serial, key string) string {
	return envelope("aut", "cancelAuthUser",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><challengeKeyMessage>`+key+`</challengeKeyMessage>`)
}

func completeSignature(key, signature string) string {
	return envelope("sig", "authSignature", `<attributeSet>`+
		attr("string", "Push Notification Client", "SIGNFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "SIGNFLD_USERID")+
		attr("string", "mydomain.com", "SIGNFLD_DOMAIN")+
		attr("string", key, "SIGNFLD_REQUEST_KEY")+
		attr("string", signature, "SIGNFLD_SIGNATURE")+`</attributeSet>`+dummyField)
}

func scanSignature(attributes ...string) string {
	return envelope("sig", "genRequest", `<attributeSet>`+
		attr("string", "Push Notification Client", "SIGNFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "SIGNFLD_USERID")+
		attr("string", "Payment", "SIGNFLD_TRANSACTION_TITLE")+strings.Join(attributes, "")+`</attributeSet>`+
		`<dataFieldList><dataField><key>amount</key><value>10 &amp; 20</value></dataField><dataField><key>to</key><value>Bob</value></dataField></dataFieldList>`)
}

func waitForSignature(key string) string {
	return envelope("sig", "authSignatureRequest", pushComponent+janeElement+`<requestKey>`+key+`</requestKey>`)
}

func pushSignature(serial string) string {
	if serial != "" {
		serial = `<serialNumber>` + serial + `</serialNumber>`
	}
	return envelope("sig", "authSignatureRequest", pushComponent+janeElement+serial+
		`<push><transactionTitle>Payment</transactionTitle><dataFieldList><dataField><key>amount</key><value>10</value></dataField></dataFieldList></push>`)
}

func retrieveSignature(serial, key string) string {
	return envelope("sig", "getPreparedSignatureRequest",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><requestKey>`+key+`</requestKey>`)
}

func cancelSignature(serial, key string) string {
	return envelope("sig", "cancelAuthSignatureRequest",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><requestKeyMessage>`+key+`</requestKeyMessage>`)
}

func updateNotificationID(serial, message string) string {
	return envelope("prov", "updateDevicePNID",
		pushComponent+janeElement+`<serialNumber>`+serial+`</serialNumber><devicePNID>`+message+`</devicePNID>`)
}

// confirmed activates the next device of jane.doe and gives its authenticator. The
// server does not know its notification ID.
func confirmed(t testing.TB, s *Server) *Authenticator {
	t.Helper()
	id, am1 := registered(t, s)
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

// activated is confirmed with a notification ID.
func activated(t testing.TB, s *Server) *Authenticator {
	t.Helper()
	a := confirmed(t, s)
	message, err := a.WrapNotificationID("device of " + a.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, updateNotificationID(a.SerialNumber, message)); got != "STAT_SUCCESS" {
		t.Fatalf("updateDevicePNID: %s", got)
	}
	return a
}

func elementValue(t testing.TB, answer, name string) string {
	t.Helper()
	m := regexp.MustCompile(`<` + name + `>([^<]*)</` + name + `>`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no element %s in %s", name, answer)
	}
	return m[1]
}

// A blocked call of an application server.
type blocked struct {
	cancel context.CancelFunc
	answer chan string
}

// block sends a request that blocks, and returns when it does. It needs a bubble
// of synctest.
func block(t *testing.T, h http.Handler, body string) blocked {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	b := blocked{cancel, make(chan string, 1)}
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

// ended gives the answer of a call that does not block any more.
func (b blocked) ended(t *testing.T) string {
	t.Helper()
	synctest.Wait()
	if len(b.answer) == 0 {
		t.Fatal("the call still blocks")
	}
	return <-b.answer
}

// newSimulation gives a server with the clock of the bubble and one device.
func newSimulation(t *testing.T) (*Server, *Authenticator) {
	t.Helper()
	s := New(Options{
		Users: []User{
			{Name: "jane.doe", Domain: "mydomain.com", OrganizationalUnit: "sales", StaticPassword: "s&cret"},
			{Name: "john", Domain: "mydomain.com", StaticPassword: "p"},
		},
		SerialStart: 1000120,
	})
	return s, activated(t, s)
}

// lastKey is the key of the last push notification.
func lastKey(t *testing.T, s *Server, serial string) string {
	t.Helper()
	pushes := s.Pushes(serial)
	if len(pushes) == 0 {
		t.Fatal("nothing was pushed")
	}
	return pushes[len(pushes)-1].Key
}

const (
	successCodes = `<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
		`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes>`
	typedSuccess = `<status>` + successCodes + `<errorStack></errorStack></status>`
)

// golden is a whole answer of a scenario in its usual form.
func golden(prefix, body string) string {
	name := map[string][3]string{
		"aut":  {"CREDENTIAL-TYPES", "CredentialTypes", "Authentication"},
		"sig":  {"SIGNATURE-TYPES", "SignatureTypes", "Signature"},
		"prov": {"PROVISIONING-TYPES", "ProvisioningTypes", "Provisioning"},
	}[prefix]
	types := "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/"
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:` + name[0] + `="` + types + name[1] + `.xsd"` +
		` xmlns:` + prefix + `="` + types + name[2] + `"><soapenv:Body>` + body + `</soapenv:Body></soapenv:Envelope>`
}

func goldenResults(typ string, attributes ...string) string {
	return `<results xsi:type="` + typ + `">` + successCodes + `<resultAttribute>` + strings.Join(attributes, "") +
		`</resultAttribute><errorStack></errorStack></results>`
}

// The answers that end a login and a signature by the device VDS1000120-1.
var (
	goldenLogin = golden("aut", `<aut:authUserResponse><authUserResults>`+goldenResults("CREDENTIAL-TYPES:CredentialResults",
		attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"),
		attr("string", "sales", "CREDFLD_ORGANIZATIONAL_UNIT"), attr("string", "VDS1000120-1", "CREDFLD_SERIAL_NO"))+
		`</authUserResults></aut:authUserResponse>`)
	goldenSignature = golden("sig", `<sig:authSignatureResponse>`+goldenResults("SIGNATURE-TYPES:SignatureResults",
		attr("string", "jane.doe", "SIGNFLD_USERID"), attr("string", "mydomain.com", "SIGNFLD_DOMAIN"),
		attr("string", "sales", "SIGNFLD_ORGANIZATIONAL_UNIT"), attr("string", "VDS1000120-1", "SIGNFLD_SERIAL_NO"))+
		`</sig:authSignatureResponse>`)
	goldenSigned = golden("sig", `<sig:authSignatureRequestResponse>`+typedSuccess+
		`<result>`+janeElement+`<serialNumber>VDS1000120-1</serialNumber></result></sig:authSignatureRequestResponse>`)
)

// check compares an answer byte by byte.
func check(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// Guards push login and push signature from end to end, byte for byte: the
// application server's call blocks, the device is notified, retrieves, completes,
// and the call ends with the same outcome; nothing can be done twice.
func TestGoldenPush(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ask                func() string
		kind               Kind
		title              string
		fields             []RequestField
		prefix             string
		retrieve, complete func(a, b string) string
		cancel             func(a, b string) string
		retrieved          string // with the message in place of %s
		completed, blocked string
	}{
		"login": {
			ask:  func() string { return authUser(password("push")) },
			kind: KindLogin, title: "Login",
			retrieve: retrieveLogin, complete: completeLogin, cancel: cancelLogin,
			retrieved: golden("aut", `<aut:getPreparedSecureChallengeResponse>`+typedSuccess+
				`<result><RequestMessage>%s</RequestMessage></result></aut:getPreparedSecureChallengeResponse>`),
			completed: goldenLogin, blocked: goldenLogin,
		},
		"signature": {
			ask:  func() string { return pushSignature("") },
			kind: KindSignature, title: "Payment", fields: []RequestField{{"amount", "10"}},
			retrieve: retrieveSignature, complete: completeSignature, cancel: cancelSignature,
			retrieved: golden("sig", `<sig:getPreparedSignatureRequestResponse>`+typedSuccess+
				`<result><requestMessage>%s</requestMessage></result></sig:getPreparedSignatureRequestResponse>`),
			completed: goldenSignature, blocked: goldenSigned,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a := newSimulation(t)
				b := block(t, s, c.ask())
				key := lastKey(t, s, a.SerialNumber)
				if !regexp.MustCompile(`^[0-9]{10}$`).MatchString(key) {
					t.Errorf("key %q", key)
				}

				_, answer := send(t, s, text11, c.retrieve(a.SerialNumber, key))
				message := elementValue(t, answer, "(?:R|r)equestMessage")
				check(t, "retrieve", answer, fmt.Sprintf(c.retrieved, message))
				request, err := a.Open(message)
				if err != nil || request.Kind != c.kind || request.Key != key || request.UserID != "jane.doe" ||
					request.Domain != "mydomain.com" || request.Title != c.title || !slices.Equal(request.Fields, c.fields) {
					t.Errorf("request %+v, %v", request, err)
				}
				if got := status(t, s, c.retrieve(a.SerialNumber, key)); got != "STAT_NOT_FOUND" {
					t.Errorf("retrieve again: %s", got)
				}

				signature, err := a.Sign(message)
				if err != nil {
					t.Fatal(err)
				}
				if got := status(t, s, c.complete(key, strings.Repeat("0", len(signature)))); got != "STAT_OTP_INCORRECT" {
					t.Errorf("wrong signature: %s", got)
				}
				synctest.Wait()
				if len(b.answer) != 0 {
					t.Fatalf("a wrong signature ended the request: %s", <-b.answer)
				}
				_, answer = send(t, s, text11, c.complete(key, signature))
				check(t, "complete", answer, c.completed)
				check(t, "the blocked call", b.ended(t), c.blocked)
				for what, body := range map[string]string{
					"complete": c.complete(key, signature), "retrieve": c.retrieve(a.SerialNumber, key), "cancel": c.cancel(a.SerialNumber, key),
				} {
					if got := status(t, s, body); got != "STAT_NOT_FOUND" {
						t.Errorf("%s after the end: %s", what, got)
					}
				}
				if u := s.State().Users[0]; u.WrongPasswords != 0 || len(s.State().Requests) != 0 {
					t.Errorf("state %+v", s.State())
				}
			})
		})
	}
}

// Guards scan login and scan signature, byte for byte: the prepared request names
// its authenticator and carries the message; it is retrieved and completed like a
// pushed one, with or without an application server that waits, and without being
// retrieved.
func TestGoldenScan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare            string
		prepared           func(key, message string) string
		keyAttribute       string
		messageAttribute   string
		request            Request
		wait               func(key string) string
		retrieve, complete func(a, b string) string
		completed, waited  string
	}{
		"login": {
			prepare: scanLogin(),
			prepared: func(key, message string) string {
				return golden("aut", `<aut:getSecureChallengeRespond>`+goldenResults("CREDENTIAL-TYPES:CredentialResults",
					attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"),
					attr("string", key, "CREDFLD_CHALLENGE_KEY"), attr("string", "VDS1000120-1", "CREDFLD_SERIAL_NO"),
					attr("string", message, "CREDFLD_REQUEST_MESSAGE"))+`</aut:getSecureChallengeRespond>`)
			},
			keyAttribute: "CREDFLD_CHALLENGE_KEY", messageAttribute: "CREDFLD_REQUEST_MESSAGE",
			request: Request{Kind: KindLogin, Title: "Login", Fields: []RequestField{{"message", "to the shop"}}},
			wait:    waitForLogin, retrieve: retrieveLogin, complete: completeLogin,
			completed: goldenLogin, waited: goldenLogin,
		},
		"signature": {
			prepare: scanSignature(),
			prepared: func(key, message string) string {
				return golden("sig", `<sig:genRequestResponse>`+goldenResults("SIGNATURE-TYPES:SignatureResults",
					attr("string", "jane.doe", "SIGNFLD_USERID"), attr("string", "mydomain.com", "SIGNFLD_DOMAIN"),
					attr("string", "VDS1000120-1", "SIGNFLD_SERIAL_NO"), attr("string", key, "SIGNFLD_REQUEST_KEY"),
					attr("string", message, "SIGNFLD_REQUEST_MESSAGE"))+`</sig:genRequestResponse>`)
			},
			keyAttribute: "SIGNFLD_REQUEST_KEY", messageAttribute: "SIGNFLD_REQUEST_MESSAGE",
			request: Request{Kind: KindSignature, Title: "Payment", Fields: []RequestField{{"amount", "10 & 20"}, {"to", "Bob"}}},
			wait:    waitForSignature, retrieve: retrieveSignature, complete: completeSignature,
			completed: goldenSignature, waited: goldenSigned,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a := newSimulation(t)
				for _, waits := range []bool{true, false} {
					_, answer := send(t, s, text11, c.prepare)
					key, message := attributeValue(t, answer, c.keyAttribute), attributeValue(t, answer, c.messageAttribute)
					check(t, "prepare", answer, c.prepared(key, message))
					var b blocked
					if waits {
						b = block(t, s, c.wait(key))
						if got := status(t, s, c.wait(key)); got != "STAT_EXISTS" {
							t.Errorf("wait twice: %s", got)
						}
						_, answer = send(t, s, text11, c.retrieve(a.SerialNumber, key))
						message = elementValue(t, answer, "(?:R|r)equestMessage")
					}
					request, err := a.Open(message)
					c.request.Key, c.request.UserID, c.request.Domain = key, "jane.doe", "mydomain.com"
					if err != nil || fmt.Sprint(request) != fmt.Sprint(c.request) {
						t.Errorf("request %+v, %v, want %+v", request, err, c.request)
					}
					signature, err := a.Sign(message)
					if err != nil {
						t.Fatal(err)
					}
					_, answer = send(t, s, text11, c.complete(key, signature))
					check(t, "complete", answer, c.completed)
					if waits {
						check(t, "the waiting call", b.ended(t), c.waited)
					}
					if got := status(t, s, c.wait(key)); got != "STAT_NOT_FOUND" {
						t.Errorf("wait for a request that has ended: %s", got)
					}
				}
				if n := len(s.Pushes("")); n != 0 {
					t.Errorf("%d pushes", n)
				}
			})
		})
	}
}

// Guards the ways in which a blocking call ends without a completion: the device
// cancels, the policy's timeout passes, the caller goes; the request is gone then.
// synctest fails the test if a goroutine stays behind.
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
		end    func(t *testing.T, s *Server, a *Authenticator, b blocked, key string, cancel func(serial, key string) string)
	}{
		"cancelled": {"STAT_ERROR", func(t *testing.T, s *Server, a *Authenticator, _ blocked, key string, cancel func(serial, key string) string) {
			t.Helper()
			wrapped, err := a.WrapKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := status(t, s, cancel(a.SerialNumber, wrapped)); got != "STAT_SUCCESS" {
				t.Errorf("cancel: %s", got)
			}
		}},
		"timed out": {"STAT_EXP_CHALLENGE", func(t *testing.T, _ *Server, _ *Authenticator, b blocked, _ string, _ func(serial, key string) string) {
			t.Helper()
			time.Sleep(time.Minute - time.Nanosecond)
			synctest.Wait()
			if len(b.answer) != 0 {
				t.Error("the call ended before its time")
			}
			time.Sleep(time.Nanosecond)
		}},
		"caller gone": {"STAT_COMMS", func(_ *testing.T, _ *Server, _ *Authenticator, b blocked, _ string, _ func(serial, key string) string) {
			b.cancel()
		}},
	}
	for call, c := range calls {
		for end, e := range ends {
			t.Run(call+" "+end, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, a := newSimulation(t)
					b := block(t, s, c.ask(t, s))
					key := s.State().Requests[0].Key
					if got := status(t, s, c.retrieve(a.SerialNumber, key)); got != "STAT_SUCCESS" {
						t.Fatalf("retrieve: %s", got)
					}
					e.end(t, s, a, b, key, c.cancel)
					answer := b.ended(t)
					if c.statusMessage && end != "caller gone" {
						// A push login by the keyword fails as a success with a status message.
						check(t, "the blocked call", answer, golden("aut", `<aut:authUserResponse><authUserResults>`+
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

// Guards that a blocked call over a real connection ends when its caller hangs
// up, and that the server is free then.
func TestBlockedCallerHangsUp(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := activated(t, s)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	requests := func(want int) {
		t.Helper()
		poll, deadline := time.NewTicker(time.Millisecond), time.After(10*time.Second)
		defer poll.Stop()
		for len(s.State().Requests) != want {
			select {
			case <-poll.C:
			case <-deadline:
				t.Fatalf("%d requests, want %d", len(s.State().Requests), want)
			}
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(pushSignature(a.SerialNumber)))
		if err == nil {
			r.Header.Set("Content-Type", text11)
			var response *http.Response
			if response, err = server.Client().Do(r); err == nil {
				response.Body.Close()
			}
		}
		ended <- err
	}()
	requests(1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call: %v", err)
	}
	requests(0)
}

// Guards that a request ends once if completion, cancellation and the end of the
// caller meet, and that both sides agree on how.
func TestOneEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s, a := newSimulation(t)
			b := block(t, s, pushSignature(""))
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
			if end := elementValue(t, b.ended(t), "statusCodeEnum"); (end == "STAT_COMMS") != (won < 0) {
				t.Errorf("the blocked call: %s, the others: %v", end, got)
			}
		})
	}
}

// Guards the age of the cache on the injected clock, for requests that nobody
// waits for as for blocked ones, and that the timeout is that of the options.
func TestRequestsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &clock{now: time.Unix(1_700_000_000, 0)}
		s := New(Options{
			Users: []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}},
			Now:   c.Now, RequestTimeout: 5 * time.Minute,
		})
		a := activated(t, s)
		b := block(t, s, pushSignature(""))
		_, answer := send(t, s, text11, scanLogin())
		key := attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY")

		c.advance(5*time.Minute - time.Second)
		if n := len(s.State().Requests); n != 2 {
			t.Errorf("%d requests before expiry", n)
		}
		c.advance(time.Second)
		if got := status(t, s, retrieveLogin(a.SerialNumber, key)); got != "STAT_NOT_FOUND" {
			t.Errorf("retrieve after expiry: %s", got)
		}
		if got := elementValue(t, b.ended(t), "statusCodeEnum"); got != "STAT_EXP_CHALLENGE" {
			t.Errorf("the blocked call: %s", got)
		}
	})
}

// Guards who may do what with a request: it is for the addressed authenticators,
// the first of them uses the key up, only it may cancel, and keys of one kind,
// user or instance of the server are none of another.
func TestRequestOwnership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, first := newSimulation(t)
		second := activated(t, s)
		b := block(t, s, pushSignature(""))
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
		b.ended(t)

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

// Guards cancelling with the plain key and with the wrapped key in either case,
// byte for byte, for both kinds.
func TestGoldenCancel(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(a *Authenticator, key string) (string, error){
		"plain":   func(_ *Authenticator, key string) (string, error) { return key, nil },
		"wrapped": (*Authenticator).WrapKey,
		"lower case": func(a *Authenticator, key string) (string, error) {
			wrapped, err := a.WrapKey(key)
			return strings.ToLower(wrapped), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a := newSimulation(t)
				_, answer := send(t, s, text11, scanLogin())
				key := attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY")
				send(t, s, text11, retrieveLogin(a.SerialNumber, key))
				message, err := form(a, key)
				if err != nil {
					t.Fatal(err)
				}
				_, answer = send(t, s, text11, cancelLogin(a.SerialNumber, message))
				check(t, "cancelAuthUser", answer, golden("aut", `<aut:cancelAuthUserResponse>`+typedSuccess+`</aut:cancelAuthUserResponse>`))

				_, answer = send(t, s, text11, scanSignature())
				key = attributeValue(t, answer, "SIGNFLD_REQUEST_KEY")
				send(t, s, text11, retrieveSignature(a.SerialNumber, key))
				if message, err = form(a, key); err != nil {
					t.Fatal(err)
				}
				_, answer = send(t, s, text11, cancelSignature(a.SerialNumber, message))
				check(t, "cancelAuthSignatureRequest", answer,
					golden("sig", `<sig:cancelAuthSignatureRequestResponse>`+typedSuccess+`</sig:cancelAuthSignatureRequestResponse>`))
				_, answer = send(t, s, text11, cancelSignature(a.SerialNumber, key))
				check(t, "cancel again", answer, golden("sig", `<sig:cancelAuthSignatureRequestResponse><status><resultCodes>`+
					`<returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>STAT_NOT_FOUND</statusCodeEnum>`+
					`<returnCode>-1</returnCode><statusCode>-13</statusCode></resultCodes><errorStack><errors><errorCode>-13</errorCode>`+
					`<errorDesc>no pending request with this key</errorDesc></errors></errorStack></status></sig:cancelAuthSignatureRequestResponse>`))
			})
		})
	}
}

// Guards one-time passwords: each counts once, some may be skipped, the answer
// names the authenticator, three wrong ones lock the user for everything. Before
// the first device the static password counts, and no authenticator is named.
func TestOneTimePasswords(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	_, answer := send(t, s, text11, authUser(password("s&amp;cret")))
	check(t, "static password", answer, golden("aut", `<aut:authUserResponse><authUserResults>`+
		goldenResults("CREDENTIAL-TYPES:CredentialResults",
			attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"))+
		`</authUserResults></aut:authUserResponse>`))
	expect := func(what, password, want string) {
		t.Helper()
		if got := status(t, s, authUser(attr("string", password, "CREDFLD_PASSWORD"))); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("wrong static password", "x", "STAT_LOCAL_PASSWORD_MISMATCH")

	first, second := activated(t, s), activated(t, s)
	expect("static password with a device", "s&amp;cret", "STAT_OTP_INCORRECT")
	for _, a := range []*Authenticator{first, second} {
		otp := a.OneTimePassword()
		_, answer := send(t, s, text11, authUser(password(otp)))
		if got := attributeValue(t, answer, "CREDFLD_SERIAL_NO"); got != a.SerialNumber {
			t.Errorf("serial number %s, want %s", got, a.SerialNumber)
		}
		expect("the same again", otp, "STAT_OTP_INCORRECT")
	}
	for range 19 {
		first.OneTimePassword()
	}
	late := first.OneTimePassword()
	if got := status(t, s, authUser(password(late), attr("string", second.SerialNumber, "CREDFLD_SERIAL_NO"))); got != "STAT_OTP_INCORRECT" {
		t.Errorf("one-time password of another authenticator: %s", got)
	}
	expect("19 skipped", late, "STAT_SUCCESS")
	for range 20 {
		first.OneTimePassword()
	}
	expect("20 skipped", first.OneTimePassword(), "STAT_OTP_INCORRECT")
	expect("wrong", "x", "STAT_OTP_INCORRECT")
	expect("wrong", "x", "STAT_OTP_INCORRECT")
	expect("locked", second.OneTimePassword(), "STAT_LOCKED")
	for name, body := range map[string]string{
		"getSecureChallenge": scanLogin(), "genRequest": scanSignature(), "authSignature": completeSignature("1", "1"),
		"authSignatureRequest": pushSignature(""), "MDL_REGISTER": registerRequest, "completing authUser": completeLogin("1", "1"),
	} {
		if got := status(t, s, body); got != "STAT_LOCKED" {
			t.Errorf("%s of a locked user: %s", name, got)
		}
	}
}

// Guards push notifications: only activated devices with a notification ID get
// them, a serial number selects one, the last 20 are kept, replicas share them,
// and the endpoint for developers tells them.
func TestPushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a := newSimulation(t)
		silent := confirmed(t, s)
		if got := status(t, s, pushSignature(silent.SerialNumber)); got != "STAT_NOT_FOUND" {
			t.Errorf("push without a notification ID: %s", got)
		}
		message, err := silent.WrapNotificationID("x")
		if err != nil {
			t.Fatal(err)
		}
		_, answer := send(t, s, text11, updateNotificationID(silent.SerialNumber, message))
		check(t, "updateDevicePNID", answer, golden("prov", `<prov:updateDevicePNIDResponse>`+typedSuccess+`</prov:updateDevicePNIDResponse>`))
		foreign, err := a.WrapNotificationID("x")
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct{ body, want string }{
			"message of another device": {updateNotificationID(silent.SerialNumber, foreign), "STAT_INVDATA"},
			"message in clear":          {updateNotificationID(silent.SerialNumber, "0102"), "STAT_INVDATA"},
			"unknown serial number":     {updateNotificationID("VDS1000120-9", message), "STAT_NOT_FOUND"},
			"licence":                   {updateNotificationID("VDS1000120", message), "STAT_NOT_FOUND"},
			"unknown user":              {strings.Replace(updateNotificationID(silent.SerialNumber, message), "jane.doe", "jim", 1), "STAT_USER_UNKNOWN"},
			"another user":              {strings.Replace(updateNotificationID(silent.SerialNumber, message), "jane.doe", "john", 1), "STAT_NOT_FOUND"},
			"user without a device":     {strings.Replace(authUser(password("push")), "jane.doe", "john", 1), "STAT_NOT_FOUND"},
			"unknown device":            {pushSignature("VDS1000120-9"), "STAT_NOT_FOUND"},
		} {
			if got := status(t, s, c.body); got != c.want {
				t.Errorf("%s: %s, want %s", what, got, c.want)
			}
		}

		replica := s.Replica()
		var keys []string
		for i := range 21 {
			b := block(t, []*Server{s, replica}[i%2], pushSignature(a.SerialNumber))
			keys = append(keys, lastKey(t, s, a.SerialNumber))
			b.cancel()
			b.ended(t)
		}
		pushes := s.Pushes(a.SerialNumber)
		if len(pushes) != 20 || len(s.Pushes(silent.SerialNumber)) != 0 || len(replica.Pushes("")) != 20 {
			t.Fatalf("%d pushes", len(pushes))
		}
		for i, p := range pushes {
			if p.Key != keys[i+1] || p.Kind != KindSignature || p.SerialNumber != "VDS1000120-1" || p.Title != "Payment" ||
				p.Message == "" || p.NotificationID != "device of VDS1000120-1" || !p.SentAt.Equal(time.Now()) {
				t.Errorf("push %d: %+v, key %s", i, p, keys[i+1])
			}
		}

		w := httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/pushes?serialNumber=VDS1000120-1", nil))
		var told []Push
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || len(told) != 20 || told[19].Key != keys[20] || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v: %s", err, w.Body)
		}
		w = httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/pushes?serialNumber=VDS1000120-2", nil))
		if got := w.Body.String(); got != "[]\n" {
			t.Errorf("no pushes: %s", got)
		}
		w = httptest.NewRecorder()
		s.PushHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/pushes", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: HTTP status %d", w.Code)
		}
	})
}

// Guards replicas: users, licences and devices are the same, while registrations,
// pending requests, counters and switches are those of one instance.
func TestReplica(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := activated(t, s)
	replica := s.Replica()
	if got := status(t, replica, authUser(password(a.OneTimePassword()))); got != "STAT_SUCCESS" {
		t.Errorf("one-time password at the replica: %s", got)
	}
	if again := activated(t, replica); again.SerialNumber != "VDS1000120-2" {
		t.Errorf("the next device is %s", again.SerialNumber)
	}
	id, _ := registered(t, s)
	if got := status(t, replica, activate(id, "1")); got != "STAT_NOT_FOUND" {
		t.Errorf("registration of another instance: %s", got)
	}
	s.Fail("authUser", FailStatus("STAT_COMMS"))
	s.SetVariant(Variant{Prefixes: true})
	_, answer := send(t, replica, text11, authUser(password("x")))
	if !strings.Contains(answer, "STAT_OTP_INCORRECT") || !strings.Contains(answer, "<aut:") {
		t.Errorf("answer of the replica: %s", answer)
	}
	if s.Calls("authUser") != 0 || replica.Calls("authUser") != 2 {
		t.Errorf("calls %d and %d", s.Calls("authUser"), replica.Calls("authUser"))
	}
	if !slices.EqualFunc(s.State().Users, replica.State().Users, func(a, b UserState) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Error("instances tell different users")
	}
	if len(s.State().Registrations) != 1 || len(replica.State().Registrations) != 0 {
		t.Error("instances share registrations")
	}
}

// Guards the limit on pending requests.
func TestPendingLimit(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	activated(t, s)
	for range maxPending {
		if _, err := s.beginRequest(s.users[0], s.users[0].authenticators(), KindLogin, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := status(t, s, scanSignature()); got != "STAT_MEMORY" {
		t.Errorf("one request more: %s", got)
	}
}

// Guards what is strict about the further commands: namespaces, forms, orders,
// choices. replace changes a good request.
func TestFurtherStrictness(t *testing.T) {
	t.Parallel()
	update := updateNotificationID("VDS1000120-1", "0102")
	for name, c := range map[string]struct {
		body, old, new string
		status         int
		answer         string
	}{
		"login in the signature scenario":        {authUser(password("x")), "IdentikeyTypes/Authentication", "IdentikeyTypes/Signature", 500, "not recognized"},
		"typed login in another scenario":        {retrieveLogin("VDS1000120-1", "1"), "IdentikeyTypes/Authentication", "IdentikeyTypes/Provisioning", 500, "not recognized"},
		"signature in the login scenario":        {completeSignature("1", "1"), "IdentikeyTypes/Signature", "IdentikeyTypes/Authentication", 500, "not recognized"},
		"attributeSet for a login":               {authUser(password("x")), "credentialAttributeSet>", "attributeSet>", 500, "expected element credentialAttributeSet"},
		"credentialAttributeSet for a signature": {completeSignature("1", "1"), "attributeSet>", "credentialAttributeSet>", 500, "expected element attributeSet"},
		"password format as a string":            {authUser(password("x")), "xsd:unsignedInt", "xsd:string", 500, "needs xsi:type xsd:unsignedInt"},
		"key as a number":                        {completeLogin("1", "1"), `"xsd:string">1</value><attributeID>CREDFLD_CHALLENGE_KEY`, `"xsd:int">1</value><attributeID>CREDFLD_CHALLENGE_KEY`, 500, "needs xsi:type xsd:string"},
		"no password format":                     {authUser(password("x")), attr("unsignedInt", "0", "CREDFLD_PASSWORD_FORMAT"), "", 200, "attribute missing: CREDFLD_PASSWORD_FORMAT"},
		"another password format":                {authUser(password("x")), ">0<", ">4<", 200, "STAT_INVPARAM"},
		"neither key nor password":               {authUser(), "", "", 200, "attribute missing: CREDFLD_PASSWORD"},
		"dataFieldList for a login":              {authUser(password("x")), "</credentialAttributeSet>", "</credentialAttributeSet>" + dummyField, 500, "element dataFieldList is one too many"},
		"no dataFieldList":                       {completeSignature("1", "1"), dummyField, "", 500, "element dataFieldList is missing"},
		"empty dataFieldList":                    {completeSignature("1", "1"), dummyField, "<dataFieldList/>", 200, "STAT_NOT_FOUND"},
		"two dataFieldLists":                     {completeSignature("1", "1"), dummyField, dummyField + dummyField, 500, "element dataFieldList is one too many"},
		"foreign element in the list":            {completeSignature("1", "1"), "dataField>", "field>", 500, "something other than dataField"},
		"data field without a value":             {completeSignature("1", "1"), "<value>v</value>", "", 500, "something other than dataField"},
		"data field with an empty value":         {completeSignature("1", "1"), "<value>v</value>", "<value/>", 200, "element empty or too long: value"},
		"nine data fields":                       {scanSignature(), "<dataFieldList>", "<dataFieldList>" + strings.Repeat("<dataField><key>k</key><value>v</value></dataField>", 7), 200, "too many data fields"},
		"key and data field":                     {completeSignature("1", "1"), "</attributeSet>", attr("string", "x", "SIGNFLD_DATA_FIELD_1") + "</attributeSet>", 200, "exactly one is needed of SIGNFLD_REQUEST_KEY and SIGNFLD_DATA_FIELD_1"},
		"data field only":                        {completeSignature("1", "1"), "SIGNFLD_REQUEST_KEY", "SIGNFLD_DATA_FIELD_1", 200, "STAT_NOSUPPORT"},
		"qualified child":                        {retrieveLogin("VDS1000120-1", "1"), "serialNumber>", "aut:serialNumber>", 500, "serialNumber must not be namespace-qualified"},
		"wrong order":                            {retrieveLogin("VDS1000120-1", "1"), pushComponent + "<serialNumber>VDS1000120-1</serialNumber>", "<serialNumber>VDS1000120-1</serialNumber>" + pushComponent, 500, "element componentType is missing or not in its place"},
		"no serial number":                       {retrieveLogin("VDS1000120-1", "1"), "<serialNumber>VDS1000120-1</serialNumber>", "", 500, "element serialNumber is missing or not in its place"},
		"element twice":                          {retrieveLogin("VDS1000120-1", "1"), pushComponent, pushComponent + pushComponent, 500, "element serialNumber is missing or not in its place"},
		"unknown element":                        {retrieveLogin("VDS1000120-1", "1"), "<challengeKey>", "<x/><challengeKey>", 500, "element challengeKey is missing or not in its place"},
		"element at the end":                     {retrieveLogin("VDS1000120-1", "1"), "</challengeKey>", "</challengeKey><x/>", 500, "element x is unknown, repeated or not in its place"},
		"elements in a value":                    {retrieveLogin("VDS1000120-1", "1"), ">1<", "><x/><", 500, "element challengeKey holds text only"},
		"empty key":                              {retrieveLogin("VDS1000120-1", "1"), ">1<", "><", 200, "element empty or too long: challengeKey"},
		"long key":                               {retrieveLogin("VDS1000120-1", "1"), ">1<", ">" + strings.Repeat("1", 65) + "<", 200, "element empty or too long: challengeKey"},
		"key of the other kind":                  {retrieveLogin("VDS1000120-1", "1"), "challengeKey>", "requestKey>", 500, "element challengeKey is missing"},
		"wrapped key under the plain name":       {cancelLogin("VDS1000120-1", "1"), "challengeKeyMessage>", "challengeKey>", 500, "element challengeKeyMessage is missing"},
		"unknown component type":                 {retrieveLogin("VDS1000120-1", "1"), "Push Notification Client", "Someone", 200, "no client component record"},
		"user without a domain":                  {update, "<domain>mydomain.com</domain>", "", 500, "element user/domain is missing"},
		"user as text":                           {update, janeElement, "<user>jane.doe</user>", 500, "element user/userID is missing"},
		"no user":                                {update, janeElement, "", 500, "element user is missing"},
		"long notification ID":                   {update, "0102", strings.Repeat("01", 536), 200, "element empty or too long: devicePNID"},
		"push and key":                           {pushSignature(""), "</push>", "</push><requestKey>1</requestKey>", 500, "exactly one is needed of push and requestKey"},
		"neither push nor key":                   {waitForSignature("1"), "<requestKey>1</requestKey>", "", 500, "exactly one is needed of push and requestKey"},
		"push without data fields":               {pushSignature(""), "<dataField><key>amount</key><value>10</value></dataField>", "", 200, "no data field"},
		"push without a list":                    {pushSignature(""), "<dataFieldList><dataField><key>amount</key><value>10</value></dataField></dataFieldList>", "", 500, "element push/dataFieldList is missing"},
		"push of an unknown user":                {pushSignature(""), "jane.doe", "jim", 200, "STAT_USER_UNKNOWN"},
		"wait for an unknown key":                {waitForSignature("1"), "", "", 200, "STAT_NOT_FOUND"},
		"subcommand before typed elements":       {update, pushComponent, "<cmd>x</cmd>" + pushComponent, 500, "element componentType is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			body := c.body
			if c.old != "" {
				if body = strings.ReplaceAll(body, c.old, c.new); body == c.body {
					t.Fatal("the test changes nothing")
				}
			}
			code, answer := send(t, s, text11, body)
			if code != c.status || !strings.Contains(answer, c.answer) {
				t.Fatalf("HTTP status %d: %s", code, answer)
			}
			if code == 500 && !strings.Contains(answer, "<faultcode>soapenv:Client<") {
				t.Errorf("no Fault of the caller: %s", answer)
			}
		})
	}
}

// commandRequests has one good request of every command but provisioningExecute.
func commandRequests() map[string]string {
	return map[string]string{
		"authUser":                       authUser(password("x")),
		"getSecureChallenge":             scanLogin(),
		"getPreparedSecureChallenge":     retrieveLogin("VDS1000120-1", "1"),
		"cancelAuthUser":                 cancelLogin("VDS1000120-1", "1"),
		"authSignature":                  completeSignature("1", "1"),
		"genRequest":                     scanSignature(),
		"authSignatureRequest":           waitForSignature("1"),
		"getPreparedSignatureRequest":    retrieveSignature("VDS1000120-1", "1"),
		"cancelAuthSignatureRequest":     cancelSignature("VDS1000120-1", "1"),
		"updateDevicePNID":               updateNotificationID("VDS1000120-1", "0102"),
		"dsappSRPRegister":               srpRegister("<serialNumber>VDS1000120</serialNumber>"),
		"dsappSRPGenerateEphemeralKey":   srpEphemeralKey("x", "02"),
		"dsappSRPGenerateActivationData": srpActivationData("x", strings.Repeat("0", 64)),
		"dsappSRPActivate":               srpActivate("x", "<response>1</response>"),
	}
}

// Guards that every command is counted and fails as it is told to, by the same
// switches, and that its answer takes the variants.
func TestEveryCommand(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	known := make(map[string]bool)
	for _, c := range s.commands {
		if c.cmd == "" {
			known[c.operation] = true
		}
	}
	requests := commandRequests()
	if len(requests) != len(known) {
		t.Errorf("%d requests for %v", len(requests), slices.Sorted(maps.Keys(known)))
	}
	for operation, body := range requests {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			if got := status(t, s, body); strings.HasPrefix(got, "STAT_INVPARAM") {
				t.Errorf("the request is not good: %s", got)
			}
			s.Fail(operation, FailStatus("STAT_COMMS"))
			if got := status(t, s, body); got != "STAT_COMMS" {
				t.Errorf("status: %s", got)
			}
			s.Fail(operation, FailFault())
			if code, answer := send(t, s, text11, body); code != 500 || !strings.Contains(answer, "soapenv:Server") {
				t.Errorf("Fault: HTTP status %d: %s", code, answer)
			}
			s.Fail(operation, NoFailure())
			s.SetVariant(Variant{Prefixes: true, IDFirst: true, Masked: true, Errors: 2, Extra: true})
			soap12Body := strings.Replace(body, soap11Namespace, soap12Namespace, 1)
			code, answer := send(t, s, text12, soap12Body)
			if code != 200 || !strings.Contains(answer, "<ns1:"+operation+"Respon") || strings.Count(answer, "<errors>") < 2 || !strings.Contains(answer, soap12Namespace) {
				t.Errorf("variant: HTTP status %d: %s", code, answer)
			}
			if n := s.Calls(operation); n != 4 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// Guards the variants in answers of the further commands: unknown values beside
// the known ones, other names, the list of user attributes.
func TestFurtherVariants(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := activated(t, s)
	s.SetVariant(Variant{Extra: true, Rename: map[string]string{"RequestMessage": "requestMessage", "CREDFLD_CHALLENGE_KEY": "CREDFLD_KEY"}})
	_, answer := send(t, s, text11, scanLogin())
	key := attributeValue(t, answer, "CREDFLD_KEY")
	_, answer = send(t, s, text11, retrieveLogin(a.SerialNumber, key))
	if !strings.Contains(answer, "</requestMessage><sandboxExtraText>unknown to every client: &lt;&amp;") {
		t.Errorf("retrieve: %s", answer)
	}
	if _, answer = send(t, s, text11, authUser(password(a.OneTimePassword()))); !strings.Contains(answer, "</results><userattributelist></userattributelist></authUserResults>") ||
		!strings.Contains(answer, "SANDBOX_EXTRA_TEXT") {
		t.Errorf("authUser: %s", answer)
	}
	if _, answer = send(t, s, text11, cancelLogin(a.SerialNumber, key)); strings.Contains(answer, "<result>") {
		t.Errorf("a command without a result has one: %s", answer)
	}
}

// Guards the nesting of a typed result: groups open and close where their members
// begin and end.
func TestTypedResult(t *testing.T) {
	t.Parallel()
	w := newWriter(provisioningScenario, Variant{Rename: map[string]string{"c": "C"}})
	typedForm{}.write(w, codesOf("STAT_SUCCESS"), []datum{
		{name: "a/b", value: "1"}, {name: "a/c/d", value: "2"}, {name: "e", value: "<3>"}, {name: "f/g/h", value: "4"},
	}, nil)
	check(t, "result", w.String(), typedSuccess+`<result><a><b>1</b><C><d>2</d></C></a><e>&lt;3&gt;</e><f><g><h>4</h></g></f></result>`)
}

// Guards that the server understands the gateway's requests as they were written
// down by hand: each is a request of its command, well-formed, and fails for no
// other reason than that its user, registration or key does not exist.
func TestRequestsOfTheGateway(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../authserver/soap/testdata/requests/*.xml")
	if err != nil || len(files) < 32 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			command, version, _ := strings.Cut(name, ".")
			contentType := text11
			if strings.HasPrefix(version, "1.2") {
				contentType = text12
			}
			s := New(Options{ComponentTypes: []string{"My Gateway"}, DescriptionAttribute: "PROVFLD_DESCRIPTION"})
			code, answer := send(t, s, contentType, string(body))
			if code != http.StatusOK || s.Calls(command) != 1 {
				t.Fatalf("HTTP status %d, %d calls: %s", code, s.Calls(command), answer)
			}
			switch got := elementValue(t, answer, "statusCodeEnum"); {
			case got == "STAT_USER_UNKNOWN", got == "STAT_NOT_FOUND":
			case got == "STAT_NOSUPPORT" && strings.HasPrefix(command, "cancel"):
			case got == "STAT_INVPARAM" && command == "dsappSRPGenerateActivationData": // its evidence is too short
			default:
				t.Errorf("status %s: %s", got, answer)
			}
		})
	}
}
