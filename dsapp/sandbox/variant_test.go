package sandbox

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Each variant changes the form of an answer and keeps the values.
func TestVariants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		variant Variant
		want    []string
	}{
		"prefixes": {Variant{Prefixes: true}, []string{"<SOAP-ENV:Body>", "<ns1:provisioningExecuteResponse>", `<value i:type="s:string">VDS1000120</value>`, `<results i:type="ns2:ProvisioningResults">`}},
		"order":    {Variant{IDFirst: true}, []string{`<attributes><attributeID>PROVFLD_SERIAL_NO</attributeID><value xsi:type="xsd:string">VDS1000120</value></attributes>`}},
		"masked":   {Variant{Masked: true}, []string{`<attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">0041C3E4`}},
		"errors":   {Variant{Errors: 2}, []string{"STAT_SUCCESS", strings.Repeat("<errors><errorCode>0</errorCode><errorDesc>further entry of the sandbox</errorDesc></errors>", 2)}},
		"extra":    {Variant{Extra: true}, []string{"SANDBOX_EXTRA_TEXT", `<value xsi:type="xsd:unsignedInt">7</value><attributeID>SANDBOX_EXTRA_NUMBER</attributeID>`}},
		"rename":   {Variant{Rename: map[string]string{"PROVFLD_ACTIVATION_MESSAGE": "PROVFLD_AM"}}, []string{"<attributeID>PROVFLD_AM</attributeID>"}},
		"all": {Variant{Prefixes: true, IDFirst: true, Masked: true, Errors: 1, Extra: true}, []string{
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><attributeID>PROVFLD_ACTIVATION_MESSAGE</attributeID><value i:type="s:string">0041C3E4`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			s.SetVariant(c.variant)
			code, answer := send(t, s, text11, registerRequest)
			for _, want := range append(c.want, "VDS1000120", "RET_SUCCESS") {
				if code != 200 || !strings.Contains(answer, want) {
					t.Errorf("HTTP status %d without %s: %.2000s", code, want, answer)
				}
			}
			if _, err := readXML([]byte(answer)); err != nil {
				t.Errorf("answer: %v", err)
			}
		})
	}
}

// Variants apply to the answers of the other commands, too.
func TestFurtherVariants(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := newPushAuthenticator(t, s)
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

// Elements of a typed result are nested by their paths.
func TestTypedResult(t *testing.T) {
	t.Parallel()
	w := newWriter(provisioningScenario, Variant{Rename: map[string]string{"c": "C"}})
	typedForm{}.write(w, codesOf("STAT_SUCCESS"), []datum{
		{name: "a/b", value: "1"}, {name: "a/c/d", value: "2"}, {name: "e", value: "<3>"}, {name: "f/g/h", value: "4"},
	}, nil)
	wantAnswer(t, "result", w.String(), typedSuccess+`<result><a><b>1</b><C><d>2</d></C></a><e>&lt;3&gt;</e><f><g><h>4</h></g></f></result>`)
}

// Every command is counted, can be made to fail, and has answers with variants.
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
