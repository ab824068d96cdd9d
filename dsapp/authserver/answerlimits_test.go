package authserver

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// endless is an answer that begins with a text and then repeats another one forever. It counts the
// bytes that were read.
type endless struct {
	start, more string
	read        int
	closed      bool
}

func (e *endless) Read(b []byte) (int, error) {
	if e.closed {
		return 0, errors.New("read after close")
	}
	for i := range b {
		at := e.read + i
		if at < len(e.start) {
			b[i] = e.start[at]
		} else {
			b[i] = e.more[(at-len(e.start))%len(e.more)]
		}
	}
	e.read += len(b)
	return len(b), nil
}

func (e *endless) Close() error {
	e.closed = true
	return nil
}

// However long an answer is, reading ends at a limit, and the memory that it takes is limited,
// also if the answer ends just below the limit. The test is not parallel, because it measures
// the allocations of the whole process.
func TestAnswerIsBounded(t *testing.T) { //nolint:paralleltest // see above
	const (
		mebibyte   = 1 << 20
		mostMemory = 16 * mebibyte // allocated in total
	)
	result := strings.TrimSuffix(envelope("<provisioningExecuteResponse><results>"+success+"<resultAttribute>"), "</SOAP-ENV:Body></SOAP-ENV:Envelope>")
	for _, test := range []struct{ name, start, more string }{
		{"blanks", "", " "},
		{"text", result + "<attributes><value>", "x"},
		{"references", result + "<attributes><value>", "&lt;"},
		{"line ends", result + "<attributes><value>", "\r"},
		{"comment", result + "<!--", "x"},
		{"CDATA", result + "<attributes><value><![CDATA[", "]"},
		{"pieces of text", result + "<attributes><value>", "x<!---->"},
		{"name of an element", result + "<", "x"},
		{"name of an attribute", result + "<a ", "x"},
		{"value of an attribute", result + `<a b="`, "x"},
		{"attributes", result + "<a", ` b=""`},
		{"name spaces", result + "<a", ` xmlns:b="c"`},
		{"instruction", "<?xml ", "x"},
		{"instructions", "", "<?a?>"},
		{"entities", "<!DOCTYPE a [", `<!ENTITY b "c">`},
		{"result attributes", result, attribute("A", "1")},
		{"error stack", result + "</resultAttribute><errorStack>", "<errors><errorCode>1</errorCode></errors>"},
		{"elements", result, "<a/>"},
		{"depth", result, "<a>"},
		{"names in the depth", result, "<" + strings.Repeat("a", 1000) + ">"},
		{"after the answer", registered, " "},
		{"fault", strings.TrimSuffix(envelope("<Fault><faultcode>e:Server</faultcode><faultstring>"), "</SOAP-ENV:Body></SOAP-ENV:Envelope>"), "x"},
	} {
		for _, end := range []int64{50 * mebibyte, mebibyte - 1} {
			body := &endless{start: test.start, more: test.more}
			in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
				_, _ = io.Copy(io.Discard, r.Body)
				return &http.Response{
					StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, ContentLength: end,
					Body: struct {
						io.Reader
						io.Closer
					}{io.LimitReader(body, end), body},
				}, nil
			}))
			s := newServers(t, Config{Instances: []Instance{in}})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := register(t.Context(), s, request)
			runtime.ReadMemStats(&after)

			if end > mebibyte {
				if failure := checkFailure(t, test.name, err, ErrBadAnswer); !strings.Contains(failure.Cause.Error(), "longer than 1048576 bytes") {
					t.Errorf("%s: %v", test.name, failure.Cause)
				}
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; body.read > mebibyte+1 || allocated > mostMemory {
				t.Errorf("%s, %d bytes: %d bytes read, %d allocated", test.name, end, body.read, allocated)
			}
			if !body.closed {
				t.Errorf("%s: the body is not closed", test.name)
			}
		}
	}
}

// The body of an answer that is not XML in UTF-8 is not read.
func TestAnswerIsNotRead(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		media  string
	}{
		"HTML":          {http.StatusOK, "text/html"},
		"no type":       {http.StatusOK, ""},
		"character set": {http.StatusOK, "text/xml; charset=utf-16"},
		"HTTP error":    {http.StatusServiceUnavailable, "text/plain"},
		"redirect":      {http.StatusFound, ""},
	} {
		body := &endless{more: "x"}
		in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {test.media}}, Body: body}, nil
		}))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
		checkFailure(t, name, err, ErrBadAnswer)
		if body.read > 0 || !body.closed {
			t.Errorf("%s: %d bytes read, closed: %t", name, body.read, body.closed)
		}
	}
}
