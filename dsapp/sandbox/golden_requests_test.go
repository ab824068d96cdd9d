package sandbox

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// A push login and a push signature have these answers: the call of the application server
// blocks, the device is notified, retrieves and completes the request, and the call ends
// with the same result. Nothing can be repeated.
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
				s, a := newServerWithDevice(t)
				b := startBlockedCall(t, s, c.ask())
				key := lastKey(t, s, a.SerialNumber)
				if !regexp.MustCompile(`^[0-9]{10}$`).MatchString(key) {
					t.Errorf("key %q", key)
				}

				_, answer := send(t, s, text11, c.retrieve(a.SerialNumber, key))
				message := elementValue(t, answer, "(?:R|r)equestMessage")
				wantAnswer(t, "retrieve", answer, fmt.Sprintf(c.retrieved, message))
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
				wantAnswer(t, "complete", answer, c.completed)
				wantAnswer(t, "the blocked call", b.result(t), c.blocked)
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

// A scan login and a scan signature have these answers: the prepared request names its
// authenticator and has the request message. It can be retrieved and completed like a pushed
// one, with or without a waiting application server, and completed without retrieval.
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
				s, a := newServerWithDevice(t)
				for _, waits := range []bool{true, false} {
					_, answer := send(t, s, text11, c.prepare)
					key, message := attributeValue(t, answer, c.keyAttribute), attributeValue(t, answer, c.messageAttribute)
					wantAnswer(t, "prepare", answer, c.prepared(key, message))
					var b blockedCall
					if waits {
						b = startBlockedCall(t, s, c.wait(key))
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
					wantAnswer(t, "complete", answer, c.completed)
					if waits {
						wantAnswer(t, "the waiting call", b.result(t), c.waited)
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

// A request can be cancelled with the plain key and with the wrapped key in either case. The
// answers have these bytes, for both kinds.
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
				s, a := newServerWithDevice(t)
				_, answer := send(t, s, text11, scanLogin())
				key := attributeValue(t, answer, "CREDFLD_CHALLENGE_KEY")
				send(t, s, text11, retrieveLogin(a.SerialNumber, key))
				message, err := form(a, key)
				if err != nil {
					t.Fatal(err)
				}
				_, answer = send(t, s, text11, cancelLogin(a.SerialNumber, message))
				wantAnswer(t, "cancelAuthUser", answer, golden("aut", `<aut:cancelAuthUserResponse>`+typedSuccess+`</aut:cancelAuthUserResponse>`))

				_, answer = send(t, s, text11, scanSignature())
				key = attributeValue(t, answer, "SIGNFLD_REQUEST_KEY")
				send(t, s, text11, retrieveSignature(a.SerialNumber, key))
				if message, err = form(a, key); err != nil {
					t.Fatal(err)
				}
				_, answer = send(t, s, text11, cancelSignature(a.SerialNumber, message))
				wantAnswer(t, "cancelAuthSignatureRequest", answer,
					golden("sig", `<sig:cancelAuthSignatureRequestResponse>`+typedSuccess+`</sig:cancelAuthSignatureRequestResponse>`))
				_, answer = send(t, s, text11, cancelSignature(a.SerialNumber, key))
				wantAnswer(t, "cancel again", answer, golden("sig", `<sig:cancelAuthSignatureRequestResponse><status><resultCodes>`+
					`<returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>STAT_NOT_FOUND</statusCodeEnum>`+
					`<returnCode>-1</returnCode><statusCode>-13</statusCode></resultCodes><errorStack><errors><errorCode>-13</errorCode>`+
					`<errorDesc>no pending request with this key</errorDesc></errors></errorStack></status></sig:cancelAuthSignatureRequestResponse>`))
			})
		})
	}
}
