//go:build linux

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi/apidoc"
)

// described is the description of the services. Answers may have no other members than those
// that it names.
var described = sync.OnceValues(func() (*openapi3.T, error) {
	text, err := apidoc.OpenAPI()
	if err != nil {
		return nil, err
	}
	var document Object
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	for _, item := range document["paths"].(Object) {
		closeSchemas(item.(Object)["post"].(Object)["responses"])
	}
	closeSchemas(document["components"])
	if text, err = json.Marshal(document); err != nil {
		return nil, err
	}
	loader := openapi3.NewLoader()
	spec, err := loader.LoadFromData(text)
	if err != nil {
		return nil, err
	}
	return spec, spec.Validate(loader.Context, openapi3.EnableExamplesValidation())
})

// closeSchemas lets the objects that a part of the document describes have no other members.
func closeSchemas(part any) {
	switch part := part.(type) {
	case Object:
		if part["type"] == "object" && part["properties"] != nil {
			part["additionalProperties"] = false
		}
		for _, nested := range part {
			closeSchemas(nested)
		}
	case []any:
		for _, nested := range part {
			closeSchemas(nested)
		}
	}
}

// violations are what the calls of all tests had that the description of the services does not
// allow.
var violations struct {
	sync.Mutex
	seen []string
}

// reportViolations prints the violations and reports whether there are any.
func reportViolations() bool {
	violations.Lock()
	defer violations.Unlock()
	for _, v := range violations.seen {
		fmt.Fprintf(os.Stderr, "not as docs/openapi.json says: %s\n", v)
	}
	return len(violations.seen) > 0
}

// contract is a transport that compares requests for services and their answers with the
// description of the services. A request is compared only if it was well-formed, that is, if
// the HTTP status is 200: tests also send what is wrong.
type contract struct{ *http.Transport }

func (c contract) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	watch(r, resp)
	return resp, nil
}

// watch has an answer compared once it was read. Answers of a proxy in front of the gateway
// are left out.
func watch(r *http.Request, resp *http.Response) {
	if r.Method == http.MethodPost && strings.Contains(resp.Header.Get("Server"), "Caddy") {
		resp.Body = &watchedBody{ReadCloser: resp.Body, request: r, response: resp}
	}
}

// watchedBody keeps what is read of a body, and compares the answer at its end.
type watchedBody struct {
	io.ReadCloser
	request  *http.Request
	response *http.Response
	read     bytes.Buffer
	compared bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Write(p[:n])
	if err == io.EOF && !b.compared {
		b.compared = true
		if _, seen := compared.LoadOrStore(callKind(b.request, b.response, b.read.Bytes()), nil); seen {
			return n, err
		}
		if err := compare(b.request, b.response, b.read.Bytes()); err != nil {
			violations.Lock()
			defer violations.Unlock()
			violations.seen = append(violations.seen, fmt.Sprintf("%s, status %d: %v; answer %.500s", b.request.URL.Path, b.response.StatusCode, err, b.read.Bytes()))
		}
	}
	return n, err
}

// compared has the kinds of calls that were compared. A comparison takes milliseconds, so only
// the first call of a kind is compared.
var compared sync.Map

var statusInAnswer = regexp.MustCompile(`"STAT_\w+"`)

// callKind returns the kind of a call: service, HTTP status, status, and the members of the
// request.
func callKind(r *http.Request, resp *http.Response, answer []byte) string {
	var members map[string]json.RawMessage
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			_ = json.NewDecoder(body).Decode(&members) // tests also send what is no JSON
		}
	}
	return fmt.Sprint(r.URL.Path, resp.StatusCode, string(statusInAnswer.Find(answer)), slices.Sorted(maps.Keys(members)))
}

// compare compares a request and its answer with the description.
func compare(r *http.Request, resp *http.Response, body []byte) error {
	spec, err := described()
	if err != nil {
		return err
	}
	item := spec.Paths.Value(r.URL.Path)
	if item == nil {
		return nil
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true}
	sent := r.Clone(context.Background())
	input := &openapi3filter.RequestValidationInput{
		Request: sent,
		Route:   &routers.Route{Spec: spec, Path: r.URL.Path, PathItem: item, Method: http.MethodPost, Operation: item.Post},
		Options: options,
	}
	if resp.StatusCode == http.StatusOK && r.GetBody != nil {
		if sent.Body, err = r.GetBody(); err != nil {
			return err
		}
		if err := openapi3filter.ValidateRequest(sent.Context(), input); err != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	return openapi3filter.ValidateResponse(sent.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(body)), Options: options,
	})
}

// Described returns the description of the services, to which answers are compared.
func Described(t testing.TB) *openapi3.T {
	t.Helper()
	spec, err := described()
	require.NoError(t, err)
	return spec
}
