package sandbox

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// soapAnswer is an answer of SOAP 1.1 around the content of an operation element.
func soapAnswer(element, content string) string {
	return `<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><x:` + element +
		` xmlns:x="urn:x">` + content + `</x:` + element + `></e:Body></e:Envelope>`
}

func soapCodes(returnCode, status, code string) string {
	enum := "RET_SUCCESS"
	if returnCode != "0" {
		enum = "RET_FAILURE"
	}
	return "<resultCodes><returnCodeEnum>" + enum + "</returnCodeEnum><statusCodeEnum>" + status + "</statusCodeEnum><returnCode>" +
		returnCode + "</returnCode><statusCode>" + code + "</statusCode></resultCodes>"
}

// The application server sends these requests, written down by hand, and reads the values of
// successful answers.
func TestApplicationServerRequests(t *testing.T) {
	t.Parallel()
	done := AuthenticatedUser{"jane.doe", "mydomain.com", "", "VDS1000120-1"}
	signed := soapAnswer("authSignatureRequestResponse", "<status>"+soapCodes("0", "STAT_SUCCESS", "0")+"<errorStack/></status>"+
		"<result><user><userID>jane.doe</userID><domain>mydomain.com</domain></user><serialNumber>VDS1000120-1</serialNumber></result>")
	loggedIn := soapAnswer("authUserResponse", "<authUserResults><results>"+soapCodes("0", "STAT_SUCCESS", "0")+"<resultAttribute>"+
		"<attributes><attributeID>CREDFLD_USERID</attributeID><value>jane.doe</value></attributes>"+
		"<attributes><value>mydomain.com</value><attributeID>CREDFLD_DOMAIN</attributeID></attributes>"+
		"<attributes><value>VDS1000120-1</value><attributeID>CREDFLD_SERIAL_NO</attributeID></attributes>"+
		"</resultAttribute><errorStack/></results></authUserResults>")

	for name, c := range map[string]struct {
		call   func(context.Context, *ApplicationServer) (any, error)
		body   string
		answer string
		want   any
	}{
		"signature": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.RequestSignature(ctx, SignatureRequest{
					UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000120-1", Title: "Pay",
					Fields: []RequestField{{"Amount", "1 < 2 & \"3\""}, {"To", "Bob"}},
				})
			},
			golden("sig", "<sig:authSignatureRequest><componentType>My bank</componentType>"+
				"<user><userID>jane.doe</userID><domain>mydomain.com</domain></user><serialNumber>VDS1000120-1</serialNumber>"+
				"<push><transactionTitle>Pay</transactionTitle><dataFieldList><dataField><key>Amount</key><value>1 &lt; 2 &amp; &#34;3&#34;</value></dataField>"+
				"<dataField><key>To</key><value>Bob</value></dataField></dataFieldList></push></sig:authSignatureRequest>"),
			signed, done,
		},
		"signature of a key": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.RequestSignature(ctx, SignatureRequest{UserID: "jane.doe", Title: "Pay", SerialNumber: "VDS1000120-1", Key: testRequestKey})
			},
			golden("sig", "<sig:authSignatureRequest><componentType>My bank</componentType>"+
				"<user><userID>jane.doe</userID></user><requestKey>0123456789</requestKey></sig:authSignatureRequest>"),
			signed, done,
		},
		"key for a signature": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.PrepareSignature(ctx, SignatureRequest{UserID: "jane.doe", Title: "Pay", Fields: []RequestField{{"To", "Bob"}}})
			},
			golden("sig", "<sig:genRequest><attributeSet>"+attr("string", "My bank", "SIGNFLD_COMPONENT_TYPE")+
				attr("string", "jane.doe", "SIGNFLD_USERID")+attr("string", "Pay", "SIGNFLD_TRANSACTION_TITLE")+
				"</attributeSet><dataFieldList><dataField><key>To</key><value>Bob</value></dataField></dataFieldList></sig:genRequest>"),
			soapAnswer("genRequestResponse", "<results>"+soapCodes("0", "STAT_SUCCESS", "0")+"<resultAttribute>"+
				"<attributes><value>0123456789</value><attributeID>SIGNFLD_REQUEST_KEY</attributeID></attributes></resultAttribute></results>"),
			testRequestKey,
		},
		"login": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.RequestLogin(ctx, LoginRequest{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000120-1", Message: "Hello"})
			},
			golden("aut", "<aut:authUser><credentialAttributeSet>"+attr("string", "My bank", "CREDFLD_COMPONENT_TYPE")+
				attr("string", "jane.doe", "CREDFLD_USERID")+attr("string", "mydomain.com", "CREDFLD_DOMAIN")+
				attr("unsignedInt", "0", "CREDFLD_PASSWORD_FORMAT")+attr("string", "VDS1000120-1", "CREDFLD_SERIAL_NO")+
				attr("string", "Hello", "CREDFLD_CHALLENGE_MESSAGE")+attr("string", "push", "CREDFLD_PASSWORD")+
				"</credentialAttributeSet></aut:authUser>"),
			loggedIn, done,
		},
		"login of a key": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.RequestLogin(ctx, LoginRequest{UserID: "jane.doe", Message: "Hello", Key: testRequestKey})
			},
			golden("aut", "<aut:authUser><credentialAttributeSet>"+attr("string", "My bank", "CREDFLD_COMPONENT_TYPE")+
				attr("string", "jane.doe", "CREDFLD_USERID")+attr("unsignedInt", "0", "CREDFLD_PASSWORD_FORMAT")+
				attr("string", "0123456789", "CREDFLD_CHALLENGE_KEY")+"</credentialAttributeSet></aut:authUser>"),
			loggedIn, done,
		},
		"key for a login": {
			func(ctx context.Context, a *ApplicationServer) (any, error) {
				return a.PrepareLogin(ctx, LoginRequest{UserID: "jane.doe", Message: "Hello"})
			},
			golden("aut", "<aut:getSecureChallenge><credentialAttributeSet>"+attr("string", "My bank", "CREDFLD_COMPONENT_TYPE")+
				attr("string", "jane.doe", "CREDFLD_USERID")+attr("string", "Hello", "CREDFLD_CHALLENGE_MESSAGE")+
				"</credentialAttributeSet></aut:getSecureChallenge>"),
			soapAnswer("getSecureChallengeRespond", "<results>"+soapCodes("0", "STAT_SUCCESS", "0")+"<resultAttribute>"+
				"<attributes><value>0123456789</value><attributeID>CREDFLD_CHALLENGE_KEY</attributeID></attributes></resultAttribute></results>"),
			testRequestKey,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != c.body {
					t.Errorf("%v: sent\n%s, want\n%s", err, body, c.body)
				}
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "text/xml; charset=utf-8" || r.Header.Get("SOAPAction") != `""` {
					t.Errorf("%s with %v", r.Method, r.Header)
				}
				w.Header().Set("Content-Type", "text/xml")
				_, _ = io.WriteString(w, c.answer)
			}))
			defer server.Close()
			a := &ApplicationServer{URL: server.URL, Client: server.Client(), ComponentType: "My bank"}
			if got, err := c.call(t.Context(), a); err != nil || got != c.want {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// Every answer other than a success is an error: refusals with their codes and reasons,
// successes with a status message, Faults and malformed answers.
func TestApplicationServerErrors(t *testing.T) {
	t.Parallel()
	stack := "<errorStack><errors><errorCode>-1</errorCode><errorDesc>rejected</errorDesc></errors><errors><errorCode>0</errorCode><errorDesc>second</errorDesc></errors></errorStack>"
	for name, c := range map[string]struct {
		answer  string
		refusal *RefusalError
		text    string
	}{
		"refusal": {
			soapAnswer("authUserResponse", "<results>"+soapCodes("-1", "STAT_ERROR", "-1")+"<resultAttribute/>"+stack+"</results>"),
			&RefusalError{Call: "authUser", ResultCodes: ResultCodes{"RET_FAILURE", "STAT_ERROR", -1, -1}, Description: "rejected"},
			"authUser was refused: STAT_ERROR (-1): rejected",
		},
		"success with a status message": {
			soapAnswer("authUserResponse", "<results>"+soapCodes("0", "STAT_SUCCESS", "0")+
				"<resultAttribute><attributes><value>wrong password</value><attributeID>CREDFLD_STATUS_MESSAGE</attributeID></attributes></resultAttribute></results>"),
			&RefusalError{Call: "authUser", ResultCodes: ResultCodes{"RET_SUCCESS", "STAT_SUCCESS", 0, 0}, Description: `the status message "wrong password": a push login that was rejected or not answered in time ends like this`},
			`authUser was refused: STAT_SUCCESS (0): the status message "wrong password": a push login that was rejected or not answered in time ends like this`,
		},
		"Fault":           {soapAnswer("Fault", "<faultcode>Client</faultcode><faultstring>no such thing</faultstring>"), nil, "a Fault: no such thing"},
		"other command":   {soapAnswer("logonResponse", soapCodes("0", "STAT_SUCCESS", "0")), nil, "another command"},
		"no result codes": {soapAnswer("authUserResponse", ""), nil, "no result codes"},
		"no number":       {soapAnswer("authUserResponse", soapCodes("x", "STAT_SUCCESS", "0")), nil, "returnCode is not a number"},
		"no XML":          {"<html>", nil, "XML"},
		"no envelope":     {"<html/>", nil, "Envelope"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.answer) }))
		a := &ApplicationServer{URL: server.URL, Client: server.Client()}
		_, err := a.RequestLogin(t.Context(), LoginRequest{UserID: "jane.doe"})
		server.Close()
		var refused *RefusalError
		if err == nil || !strings.Contains(err.Error(), c.text) || errors.As(err, &refused) != (c.refusal != nil) {
			t.Errorf("%s: %v", name, err)
		} else if c.refusal != nil && *refused != *c.refusal {
			t.Errorf("%s: %+v", name, refused)
		}
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, soapAnswer("genRequestResponse", "<results>"+soapCodes("0", "STAT_SUCCESS", "0")+"<resultAttribute/></results>"))
	}))
	defer server.Close()
	a := &ApplicationServer{URL: server.URL, Client: server.Client()}
	if key, err := a.PrepareSignature(t.Context(), SignatureRequest{UserID: "jane.doe"}); err == nil || !strings.Contains(err.Error(), "SIGNFLD_REQUEST_KEY") {
		t.Errorf("key %q, %v", key, err)
	}
}

// A request of the application server blocks until the device completes or cancels it on
// the simulated authentication server.
func TestApplicationServerAndServer(t *testing.T) {
	t.Parallel()
	s := New(Options{Users: []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s3cret!"}}})
	u := s.users[0]
	l := s.newLicense(u, false)
	device := &authenticatorInstance{serial: instanceSerial(l.serial, 1), key: [secretSize]byte{9}, activated: true, notificationID: "ID"}
	l.instances = append(l.instances, device)
	authenticator := &Authenticator{SerialNumber: device.serial, Secret: device.key[:]}
	server := httptest.NewServer(s)
	defer server.Close()
	a := &ApplicationServer{URL: server.URL, Client: server.Client()}

	signature := func(key string) func(context.Context) (AuthenticatedUser, error) {
		return func(ctx context.Context) (AuthenticatedUser, error) {
			return a.RequestSignature(ctx, SignatureRequest{UserID: "jane.doe", Fields: []RequestField{{"To", "Bob"}}, Key: key})
		}
	}
	login := func(key string) func(context.Context) (AuthenticatedUser, error) {
		return func(ctx context.Context) (AuthenticatedUser, error) {
			return a.RequestLogin(ctx, LoginRequest{UserID: "jane.doe", Message: "Hello", Key: key})
		}
	}
	prepare := func(key string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	scannedSignature := func() string {
		return prepare(a.PrepareSignature(t.Context(), SignatureRequest{UserID: "jane.doe", Fields: []RequestField{{"To", "Bob"}}}))
	}
	scannedLogin := func() string {
		return prepare(a.PrepareLogin(t.Context(), LoginRequest{UserID: "jane.doe", Message: "Hello"}))
	}
	for _, c := range []struct {
		name string
		kind Kind
		key  string // empty for a push
		ask  func(key string) func(context.Context) (AuthenticatedUser, error)
		sign bool
	}{
		{"signature", KindSignature, "", signature, true},
		{"rejected signature", KindSignature, "", signature, false},
		{"scanned signature", KindSignature, scannedSignature(), signature, true},
		{"login", KindLogin, "", login, true},
		{"rejected login", KindLogin, "", login, false},
		{"scanned login", KindLogin, scannedLogin(), login, true},
		{"rejected scanned login", KindLogin, scannedLogin(), login, false},
	} {
		type result struct {
			done AuthenticatedUser
			err  error
		}
		sent := len(s.Pushes(""))
		results := make(chan result, 1)
		go func() {
			done, err := c.ask(c.key)(t.Context())
			results <- result{done, err}
		}()
		key := c.key
		poll.Until(t, c.name, func() bool {
			if c.key != "" {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.pending[c.key].awaited
			}
			pushes := s.Pushes(device.serial)
			if len(pushes) > sent {
				key = pushes[len(pushes)-1].Key
			}
			return len(pushes) > sent
		})
		message, err := s.retrieve(c.kind, device.serial, key)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.sign {
			signed, err := authenticator.Sign(message)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			s.mu.Lock()
			p, err := s.findRequest(c.kind, key)
			if err == nil {
				err = s.complete(p, signed)
			}
			s.mu.Unlock()
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		} else if err := s.cancel(c.kind, device.serial, key); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		r := <-results
		var refused *RefusalError
		switch {
		case c.sign && (r.err != nil || r.done != AuthenticatedUser{"jane.doe", "mydomain.com", "", device.serial}):
			t.Errorf("%s: %+v, %v", c.name, r.done, r.err)
		case !c.sign && !errors.As(r.err, &refused):
			t.Errorf("%s: %+v, %v", c.name, r.done, r.err)
		}
	}
}

// No answer of an authentication server makes the application server panic.
func FuzzSOAPAnswer(f *testing.F) {
	f.Add([]byte(soapAnswer("authUserResponse", "<results>"+soapCodes("0", "STAT_SUCCESS", "0")+
		"<resultAttribute><attributes><value>jane.doe</value><attributeID>CREDFLD_USERID</attributeID></attributes></resultAttribute></results>")))
	f.Add([]byte(soapAnswer("authUserRespond", "<status>"+soapCodes("-1", "STAT_ERROR", "-1")+"</status><result><user><userID>u</userID></user></result>")))
	f.Add([]byte(soapAnswer("Fault", "<faultstring>no</faultstring>")))
	f.Add([]byte("<html/>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		data, err := readSOAPAnswer("authUser", body)
		if (err == nil) != (data != nil) {
			t.Errorf("data %v, error %v", data, err)
		}
		if data[credStatusMessage] != "" {
			t.Error("took a status message for a success")
		}
	})
}
