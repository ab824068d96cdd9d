package apidoc

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// Names of the files of the reference, as last elements of a path.
const (
	pageName    = ""
	openAPIName = "openapi.json"
)

// Reference serves the description of the services: a page, at every path that ends in a slash,
// and beside it the document of OpenAPI and, if there is one, the console. It answers GET and HEAD.
//
// The page is one file and loads nothing else. Its links are relative, so that it can be at any
// path. Without JavaScript it lacks only the search and the buttons that copy examples.
type Reference struct {
	files map[string]file // by name
}

// file is a file with its header.
type file struct {
	content []byte
	header  map[string]string
}

// NewReference generates the page and the document from the table of services. Without a
// console, nothing of it is served.
func NewReference(console *Console) (*Reference, error) {
	document, err := OpenAPI()
	if err != nil {
		return nil, err
	}
	page, policy, err := renderPage(console != nil)
	if err != nil {
		return nil, err
	}
	files := map[string]file{
		pageName:    newFile(page, htmlType, policy),
		openAPIName: newFile(document, "application/json", nothingPolicy),
	}
	if console != nil {
		if err := console.addTo(files); err != nil {
			return nil, err
		}
	}
	return &Reference{files}, nil
}

const (
	htmlType = "text/html; charset=utf-8"
	// nothingPolicy is the content security policy of files that are no pages.
	nothingPolicy = "default-src 'none'; frame-ancestors 'none'"
)

func newFile(content []byte, contentType, policy string) file {
	sum := sha256.Sum256(content)
	return file{content, map[string]string{
		"Content-Type":            contentType,
		"Content-Security-Policy": policy,
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
		// Another version of the gateway has another page at the same path.
		"Cache-Control": "no-cache",
		"ETag":          `"` + hex.EncodeToString(sum[:16]) + `"`,
	}}
}

// ServeHTTP answers with the file that the last element of the path names. The path must be that
// which the client has sent, because links are relative to it. If a slash is missing at its end,
// the answer redirects there.
func (f *Reference) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method must be GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	escaped := r.URL.EscapedPath()
	name := escaped[strings.LastIndexByte(escaped, '/')+1:]
	found, ok := f.files[name]
	switch {
	case ok:
	case strings.ContainsAny(name, ".%"):
		http.Error(w, "not found", http.StatusNotFound)
		return
	default:
		w.Header().Set("Location", "./"+name+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	for field, value := range found.header {
		w.Header().Set(field, value)
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(found.content))
}

//go:embed reference
var sources embed.FS

// baseURL stands for the address of the gateway in examples. The script of the page replaces it.
const baseURL = "https://gateway.example.com"

// renderPage returns the page and its content security policy.
func renderPage(console bool) (page []byte, policy string, err error) {
	style, err := sources.ReadFile("reference/page.css")
	if err != nil {
		return nil, "", err
	}
	script, err := sources.ReadFile("reference/page.js")
	if err != nil {
		return nil, "", err
	}
	text, err := template.New("page.html.tmpl").Funcs(template.FuncMap{"breakable": breakable}).ParseFS(sources, "reference/page.html.tmpl")
	if err != nil {
		return nil, "", err
	}
	v := view{
		Style: template.CSS(style), Script: template.JS(script), //nolint:gosec // our own files
		Rules: rules(), Base: baseURL, Console: consoleLink(console),
		Variables: newExample("Shell", "the keys", keyVariable(apikey.FrontEnd)+"=sandbox-front-end\n"+keyVariable(apikey.BackEnd)+"=sandbox-back-end"),
		Authority: newExample("Shell", "the certificate", "export CURL_CA_BUNDLE=/path/to/ca.pem"),
		Answers:   answerViews(),
	}
	for _, f := range restapi.Flows() {
		operations, err := operationViews(f)
		if err != nil {
			return nil, "", err
		}
		v.Flows = append(v.Flows, flowView{strings.ToLower(string(f)), string(f), f.Describe(), operations})
	}
	v.Statuses = statusViews(v.Flows)
	var b bytes.Buffer
	if err := text.Execute(&b, v); err != nil {
		return nil, "", err
	}
	return b.Bytes(), "default-src 'none'; style-src " + hashSource(style) + "; script-src " + hashSource(script) +
		"; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}

// hashSource returns the source expression of a content security policy for an inline element.
func hashSource(content []byte) string {
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// breakable returns a name with places at which a line can be broken.
func breakable(name string) template.HTML {
	safe := template.HTMLEscapeString(name)
	return template.HTML(strings.NewReplacer("/", "/<wbr />", "_", "_<wbr />").Replace(safe)) //nolint:gosec // escaped above
}

// The types below are what the template shows.

type view struct {
	Style     template.CSS
	Script    template.JS
	Rules     []string
	Base      string
	Console   string // its file, empty if there is none
	Variables example
	Authority example
	Flows     []flowView
	Answers   []answerView
	Statuses  []statusView
}

type flowView struct {
	ID, Name, Text string
	Operations     []*operationView
}

// operationView shows the services of one operation.
type operationView struct {
	ID, Title string
	// Channels are those of the services, such as "push/scan".
	Channels string
	restapi.Description
	Current callsView
	// Deprecated is nil if there is no deprecated service.
	Deprecated *callsView
	Answers    []int // HTTP statuses
}

// callsView shows services that differ only in the channel.
type callsView struct {
	Services []serviceView
	Members  []memberView
	Results  []restapi.Result
	Success  string
}

type serviceView struct {
	ID      string // empty if the operation has it
	Path    string
	Keys    []string
	Channel string
	Curl    example
}

type memberView struct {
	restapi.Member
	Limits string
}

// example is a text to copy.
type example struct {
	Language, Name string
	// Parts are the text without baseURL, which stands between them.
	Parts []string
	Base  string
}

func newExample(language, name, text string) example {
	return example{language, name, strings.Split(text, baseURL), baseURL}
}

type answerView struct {
	ID string // of the first answer with an HTTP status
	restapi.Answer
}

type statusView struct {
	restapi.Status
	Advice []advice
	HTTP   []int // HTTP statuses of answers that have it
}

// advice is what a caller should do after a refusal by some operations.
type advice struct {
	Then       string
	Operations []*operationView
}

func answerViews() []answerView {
	var views []answerView
	last := 0
	for _, a := range restapi.Answers() {
		v := answerView{Answer: a}
		if a.HTTPStatus != last {
			v.ID, last = "http-"+strconv.Itoa(a.HTTPStatus), a.HTTPStatus
		}
		views = append(views, v)
	}
	return views
}

// operationViews returns the operations of a flow in the order of the table.
func operationViews(f restapi.Flow) ([]*operationView, error) {
	var operations []gateway.Operation
	services := map[gateway.Operation][]restapi.Service{}
	for _, s := range restapi.Services() {
		if s.Flow != f {
			continue
		}
		if services[s.Operation] == nil {
			operations = append(operations, s.Operation)
		}
		services[s.Operation] = append(services[s.Operation], s)
	}
	var views []*operationView
	for _, o := range operations {
		v, err := newOperationView(services[o])
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

func newOperationView(services []restapi.Service) (*operationView, error) {
	var current, deprecated []restapi.Service
	for _, s := range services {
		if s.Deprecated {
			deprecated = append(deprecated, s)
		} else {
			current = append(current, s)
		}
	}
	first := &current[0]
	v := &operationView{ID: operationID(first), Title: path.Base(first.Path), Description: first.Description}
	var channels []string
	for _, s := range current {
		if s.Channel != "" {
			channels = append(channels, string(s.Channel))
		}
	}
	v.Channels = strings.Join(channels, "/")
	for _, a := range first.Answers() {
		if !slices.Contains(v.Answers, a.HTTPStatus) {
			v.Answers = append(v.Answers, a.HTTPStatus)
		}
	}
	var err error
	if v.Current, err = newCallsView(current); err != nil {
		return nil, err
	}
	v.Current.Services[0].ID = ""
	if deprecated != nil {
		calls, err := newCallsView(deprecated)
		if err != nil {
			return nil, err
		}
		v.Deprecated = &calls
	}
	return v, nil
}

func newCallsView(services []restapi.Service) (callsView, error) {
	first := &services[0]
	success, err := marshal(successExample(first))
	if err != nil {
		return callsView{}, err
	}
	v := callsView{Results: first.Results, Success: string(bytes.TrimSpace(success))}
	for _, m := range first.Members {
		v.Members = append(v.Members, memberView{m, ruleOf(m).Describe()})
	}
	for i := range services {
		s := &services[i]
		command, err := curl(s)
		if err != nil {
			return callsView{}, err
		}
		shown := serviceView{
			ID: operationID(s), Path: s.Path, Channel: channelText(s.Channel),
			Curl: newExample("curl", "the example of "+s.Name(), command),
		}
		for _, c := range s.Classes {
			shown.Keys = append(shown.Keys, keyWord(c))
		}
		v.Services = append(v.Services, shown)
	}
	return v, nil
}

func channelText(c restapi.Channel) string {
	switch c {
	case restapi.Push:
		return "For a key from a push notification."
	case restapi.Scan:
		return "For a key from an image that the phone has scanned."
	}
	return ""
}

// keyVariable returns the variable of the shell that has a key of the class in examples.
func keyVariable(c apikey.Class) string {
	if c == apikey.BackEnd {
		return "BACK_END_KEY"
	}
	return "FRONT_END_KEY"
}

// curl returns a command of a POSIX shell that calls the service.
func curl(s *restapi.Service) (string, error) {
	body, err := marshal(requestExample(s))
	if err != nil {
		return "", err
	}
	quoted := strings.NewReplacer("'", `'\''`, "\n", "\n  ").Replace(string(bytes.TrimSpace(body)))
	return fmt.Sprintf("curl -i %s%s \\\n  -u \"$%s:\" \\\n  -H 'Content-Type: application/json' \\\n  -d '%s'",
		baseURL, s.Path, keyVariable(s.Classes[0]), quoted), nil
}

func statusViews(flows []flowView) []statusView {
	var views []statusView
	for _, s := range restapi.Statuses() {
		v := statusView{Status: s}
		for _, f := range flows {
			for _, o := range f.Operations {
				for _, r := range o.Refusals {
					if r.Status == s.Name {
						v.add(r.Then, o)
					}
				}
			}
		}
		for _, a := range restapi.Answers() {
			if a.Status == s.Name && !slices.Contains(v.HTTP, a.HTTPStatus) {
				v.HTTP = append(v.HTTP, a.HTTPStatus)
			}
		}
		views = append(views, v)
	}
	return views
}

func (v *statusView) add(then string, o *operationView) {
	for i := range v.Advice {
		if v.Advice[i].Then == then {
			v.Advice[i].Operations = append(v.Advice[i].Operations, o)
			return
		}
	}
	v.Advice = append(v.Advice, advice{then, []*operationView{o}})
}
