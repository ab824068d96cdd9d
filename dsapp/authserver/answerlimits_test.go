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

// However long an answer is, reading ends at a limit, and the memory that it takes is limited. The
// test is not parallel, because it measures the allocations of the whole process.
func TestAnswerIsBounded(t *testing.T) { //nolint:paralleltest // see above
	const (
		mebibyte = 1 << 20
		// buffered is how much may be read beyond what is parsed.
		buffered = 64 << 10
	)
	result := strings.TrimSuffix(envelope("<provisioningExecuteResponse><results>"+success+"<resultAttribute>"), "</SOAP-ENV:Body></SOAP-ENV:Envelope>")
	for _, test := range []struct {
		name        string
		start, more string
		problem     string
		mostRead    int
		mostMemory  uint64 // allocated in total
	}{
		{"blanks", "", " ", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"text", result + "<attributes><value>", "x", "longer than", mebibyte + buffered, 16 * mebibyte},
		{"references", result + "<attributes><value>", "&lt;", "longer than", mebibyte + buffered, 16 * mebibyte},
		{"comment", result + "<!--", "x", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"CDATA", result + "<attributes><value><![CDATA[", "]", "longer than", mebibyte + buffered, 16 * mebibyte},
		{"pieces of text", result + "<attributes><value>", "x<!---->", "longer than", mebibyte + buffered, 32 * mebibyte},
		{"name of an element", result + "<", "x", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"name of an attribute", result + "<a ", "x", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"value of an attribute", result + `<a b="`, "x", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"attributes", result + "<a", ` b=""`, "longer than", mebibyte + buffered, 128 * mebibyte},
		{"name spaces", result + "<a", ` xmlns:b="c"`, "longer than", mebibyte + buffered, 64 * mebibyte},
		{"instruction", "<?xml ", "x", "longer than", mebibyte + buffered, 8 * mebibyte},
		{"instructions", "", "<?a?>", "longer than", mebibyte + buffered, 64 * mebibyte},
		{"entities", "<!DOCTYPE a [", `<!ENTITY b "c">`, "longer than", mebibyte + buffered, 32 * mebibyte},
		{"result attributes", result, attribute("A", "1"), "more than 10000 elements", mebibyte, 32 * mebibyte},
		{"error stack", result + "</resultAttribute><errorStack>", "<errors><errorCode>1</errorCode></errors>", "more than 10000 elements", mebibyte, 32 * mebibyte},
		{"elements", result, "<a/>", "more than 10000 elements", mebibyte / 8, 8 * mebibyte},
		{"depth", result, "<a>", "nested deeper", buffered, mebibyte},
		{"names in the depth", result, "<" + strings.Repeat("a", 1000) + ">", "nested deeper", 2 * buffered, mebibyte},
		{"after the answer", registered, " ", "longer than", mebibyte + buffered, 8 * mebibyte},
		{
			"fault", strings.TrimSuffix(envelope("<Fault><faultcode>e:Server</faultcode><faultstring>"), "</SOAP-ENV:Body></SOAP-ENV:Envelope>"), "x",
			"longer than", mebibyte + buffered, 16 * mebibyte,
		},
	} {
		body := &endless{start: test.start, more: test.more}
		in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, ContentLength: 50 << 20, Body: body,
			}, nil
		}))
		s := newServers(t, Config{Instances: []Instance{in}})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := register(t.Context(), s, request)
		runtime.ReadMemStats(&after)

		failure := checkFailure(t, test.name, err, ErrBadAnswer)
		if !strings.Contains(failure.Cause.Error(), test.problem) {
			t.Errorf("%s: %v", test.name, failure.Cause)
		}
		allocated := after.TotalAlloc - before.TotalAlloc
		if body.read > test.mostRead || allocated > test.mostMemory {
			t.Errorf("%s: %d bytes read, %d allocated", test.name, body.read, allocated)
		}
		if !body.closed {
			t.Errorf("%s: the body is not closed", test.name)
		}
		t.Logf("%s: %d KiB read, %d KiB allocated", test.name, body.read>>10, allocated>>10)
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
