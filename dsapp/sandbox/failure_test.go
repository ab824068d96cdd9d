package sandbox

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// A result is what a plain client saw of a call.
type result struct {
	status int
	body   string
	err    error // of the call or of reading its body
}

func post(ctx context.Context, server *httptest.Server) result {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader(registerRequest))
	if err != nil {
		return result{err: err}
	}
	r.Header.Set("Content-Type", text11)
	response, err := server.Client().Do(r)
	if err != nil {
		return result{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return result{response.StatusCode, string(body), err}
}

// A client sees these failures, over TCP and TLS. The command is carried out as documented,
// and the server works again after NoFailure.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		failure   Failure
		effective bool
		check     func(result) bool
	}{
		"reset":   {FailReset(), false, func(r result) bool { return r.err != nil && r.status == 0 }},
		"HTTP":    {FailHTTP(), false, func(r result) bool { return r.status == 500 && !strings.Contains(r.body, "<") }},
		"Fault":   {FailFault(), false, func(r result) bool { return r.status == 500 && strings.Contains(r.body, "<faultcode>soapenv:Server<") }},
		"status":  {FailStatus("STAT_COMMS"), false, func(r result) bool { return r.status == 200 && strings.Contains(r.body, "<statusCode>-10<") }},
		"unknown": {FailStatus("STAT_NEW"), false, func(r result) bool { return r.status == 200 && strings.Contains(r.body, "STAT_NEW") }},
		"partial": {FailPartial(), true, func(r result) bool {
			return r.status == 200 && errors.Is(r.err, io.ErrUnexpectedEOF) && strings.HasPrefix(r.body, "<?xml")
		}},
		"oversized": {FailOversized(), true, func(r result) bool {
			return r.status == 200 && len(r.body) > oversizedBytes && strings.Contains(r.body, "STAT_SUCCESS")
		}},
		"deep": {FailDeep(), true, func(r result) bool {
			_, err := readXML([]byte(r.body))
			return r.status == 200 && strings.Contains(r.body, "STAT_SUCCESS") && err != nil && strings.Contains(err.Error(), "deeply")
		}},
		"doctype": {FailDoctype(), true, func(r result) bool {
			_, err := readXML([]byte(r.body))
			return r.status == 200 && strings.Contains(r.body, "STAT_SUCCESS") && err != nil && strings.Contains(err.Error(), "document type")
		}},
	} {
		for transport, start := range map[string]func(http.Handler) *httptest.Server{
			"TCP": httptest.NewServer, "TLS": httptest.NewTLSServer,
		} {
			t.Run(name+"/"+transport, func(t *testing.T) {
				t.Parallel()
				s, _ := newTestServer()
				server := start(s)
				t.Cleanup(server.Close)

				s.Fail("PROVISIONCMD_MDL_REGISTER", c.failure)
				if r := post(t.Context(), server); !c.check(r) {
					t.Errorf("status %d, error %v: %.300s", r.status, r.err, r.body)
				}
				if n := len(s.State().Registrations); (n == 1) != c.effective {
					t.Errorf("%d registrations", n)
				}
				if n := s.Calls("PROVISIONCMD_MDL_REGISTER"); n != 1 {
					t.Errorf("%d calls", n)
				}
				s.Fail("PROVISIONCMD_MDL_REGISTER", NoFailure())
				if r := post(t.Context(), server); r.status != 200 || r.err != nil || !strings.Contains(r.body, "STAT_SUCCESS") {
					t.Errorf("switched off: status %d, error %v", r.status, r.err)
				}
			})
		}
	}
}

// A hanging call is counted and not answered. It ends with its caller, so that the server can
// be closed.
func TestHang(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.Fail("provisioningExecute", FailHang())

	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	seen := make(chan result, 1)
	go func() { seen <- post(ctx, server) }()
	poll.Until(t, "the call", func() bool { return s.Calls("provisioningExecute") > 0 })
	select {
	case r := <-seen:
		t.Fatalf("answer %d, %v", r.status, r.err)
	default:
	}
	cancel()
	if r := <-seen; !errors.Is(r.err, context.Canceled) {
		t.Errorf("status %d, error %v", r.status, r.err)
	}
}

// The failure of a subcommand has precedence over that of its operation and does not affect
// other subcommands.
func TestFailureOfSubcommand(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	s.Fail("provisioningExecute", FailStatus("STAT_ERROR"))
	s.Fail("PROVISIONCMD_MDL_REGISTER", FailStatus("STAT_LICENCE"))
	if got := status(t, s, registerRequest); got != "STAT_LICENCE" {
		t.Errorf("subcommand: %s", got)
	}
	if got := status(t, s, activate("x", "y")); got != "STAT_ERROR" {
		t.Errorf("other subcommand: %s", got)
	}
	s.Fail("provisioningExecute", NoFailure())
	if got := status(t, s, activate("x", "y")); got != "STAT_NOT_FOUND" {
		t.Errorf("without failure: %s", got)
	}
}

// FailReset works with HTTP/2, too, where the connection cannot be hijacked.
func TestResetHTTP2(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	s.Fail("provisioningExecute", FailReset())
	server := httptest.NewUnstartedServer(s)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	if r := post(t.Context(), server); r.err == nil {
		t.Errorf("status %d", r.status)
	}
}

// Published statuses have their published numbers.
func TestStatusNumbers(t *testing.T) {
	t.Parallel()
	for name, number := range map[string]int{
		"STAT_SUCCESS": 0, "STAT_ERROR": -1, "STAT_INVPARAM": -2, "STAT_MEMORY": -3, "STAT_COMMS": -10,
		"STAT_LICENCE": -11, "STAT_OS_FAILURE": -12, "STAT_NOT_FOUND": -13, "STAT_EXISTS": -14,
		"STAT_INVCREDENTIALS": 1000, "STAT_GROUPCHK": 1002, "STAT_EXP_CHALLENGE": 1004,
		"STAT_PERMISSION": 1005, "STAT_LOCALAUTH": 1006, "STAT_LOCKED": 1007,
	} {
		c := codesOf(name)
		if c.statusCode != number || c.statusCodeEnum != name || (c.returnCode == 0) != (number == 0) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// All codes of an answer agree whether it is a success, for every status in the source and
// for an unknown one.
func TestCodesAgree(t *testing.T) {
	t.Parallel()
	names := map[string]bool{"STAT_ANY_OTHER": true}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"(STAT_\w+)"`).FindAllSubmatch(source, -1) {
			names[string(m[1])] = true
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %d statuses found", len(names))
	}
	for name := range names {
		success := name == "STAT_SUCCESS"
		c := codesOf(name)
		if c.statusCodeEnum != name || (c.returnCodeEnum == "RET_SUCCESS") != success || (c.returnCode == 0) != success || (c.statusCode == 0) != success {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
