package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Limits of the control interface.
const (
	maxControlBody  = 1 << 16 // bytes
	maxUserName     = 255     // bytes, of a user, a domain or a static password
	maxUserLicenses = 100
)

// control is the control interface of the servers of a deployment.
type control struct {
	servers []*Server
}

// controlCalls are the calls of the control interface.
var controlCalls = [...]struct {
	method, path string
	handle       func(c *control, r *http.Request) (any, error)
}{
	{http.MethodGet, "/control/failures", (*control).listFailures},
	{http.MethodPost, "/control/failures", (*control).addFailure},
	{http.MethodDelete, "/control/failures", (*control).endFailures},
	{http.MethodGet, "/control/users", (*control).listUsers},
	{http.MethodPost, "/control/users", (*control).addUser},
	{http.MethodPatch, "/control/users", (*control).changeUser},
	{http.MethodPost, "/control/reset", (*control).reset},
}

// ControlHandler returns the control interface of a server and its replicas: it makes commands
// fail, adds, locks and unlocks users, and resets everything. Answers are in JSON, an error is
// {"error": "…"}. Whoever can call it controls the servers, so it has to listen on loopback
// only. It refuses calls that a browser makes for the page of another origin.
func ControlHandler(servers ...*Server) http.Handler {
	c := &control{servers: servers}
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeControlError(w, &controlError{http.StatusForbidden, "calls from the page of another origin are refused"})
	}))
	return protection.Handler(c)
}

// ServeHTTP implements http.Handler.
func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A page whose name leads to loopback has its own origin.
	if !isLoopback(r.Host) {
		writeControlError(w, &controlError{http.StatusForbidden, "the host of the URL has to be localhost or an address of loopback"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxControlBody)
	var paths, methods []string
	for _, call := range controlCalls {
		if !slices.Contains(paths, call.path) {
			paths = append(paths, call.path)
		}
		if call.path != r.URL.Path {
			continue
		}
		if call.method == r.Method {
			answer, err := call.handle(c, r)
			if err != nil {
				writeControlError(w, err)
				return
			}
			writeJSON(w, http.StatusOK, answer)
			return
		}
		methods = append(methods, call.method)
	}
	if methods == nil {
		writeControlError(w, &controlError{http.StatusNotFound, "no such path; there are " + strings.Join(paths, ", ")})
		return
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	writeControlError(w, &controlError{http.StatusMethodNotAllowed, "the method has to be " + strings.Join(methods, " or ")})
}

// isLoopback reports whether a host, with or without a port, is localhost or an address of
// loopback.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// controlError is an error with its HTTP status.
type controlError struct {
	status int
	text   string
}

func (e *controlError) Error() string { return e.text }

func writeControlError(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if e, ok := errors.AsType[*controlError](err); ok {
		status = e.status
	}
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

// readMembers reads a JSON object into a struct of strings, integers, booleans and pointers to
// them. Names are case-sensitive. An unknown member is an error.
func readMembers(r *http.Request, to any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return errors.New("the body is not a JSON object")
	}
	var accepted []string
	for f := range reflect.TypeOf(to).Elem().Fields() {
		accepted = append(accepted, f.Tag.Get("json"))
	}
	for name := range members {
		if !slices.Contains(accepted, name) {
			return fmt.Errorf("%.64q is no member; there are %s", name, strings.Join(accepted, ", "))
		}
	}
	err = json.Unmarshal(body, to)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is a JSON %s; it has to be %s", wrong.Field, wrong.Value, typeNames[wrong.Type.Kind()])
	}
	return err
}

// typeNames are the kinds of members.
var typeNames = map[reflect.Kind]string{reflect.String: "a string", reflect.Int: "an integer", reflect.Bool: "true or false"}

// failureRequest is a failure in the control interface.
type failureRequest struct {
	Instance  *int   `json:"instance"`
	Operation string `json:"operation"`
	Kind      string `json:"kind"`
	Status    string `json:"status"`
	Delay     string `json:"delay"`
	Times     *int   `json:"times"`
}

// FailureState is one failure that the control interface lists.
type FailureState struct {
	// Instance is the number of the server, from 1.
	Instance int `json:"instance"`
	// Operation is an operation or a subcommand; absent for all.
	Operation string `json:"operation,omitempty"`
	Kind      string `json:"kind"`
	Status    string `json:"status,omitempty"`
	Delay     string `json:"delay,omitempty"`
	// Times is how many further calls fail; absent if all do.
	Times int `json:"times,omitempty"`
}

// controlKinds are the kinds of failures of the control interface.
var controlKinds = [...]struct {
	name string
	kind failureKind
}{
	{"refuse", failRefuse},
	{"hang", failHang},
	{"delay", failDelay},
	{"cut", failPartial},
	{"fault", failFault},
	{"status", failStatus},
}

// failure checks a request and returns its failure.
func (f *failureRequest) failure(operations []string) (Failure, error) {
	var names []string
	var made Failure
	for _, k := range controlKinds {
		names = append(names, k.name)
		if k.name == f.Kind {
			made.kind = k.kind
		}
	}
	switch {
	case made.kind == noFailure:
		return made, fmt.Errorf("kind %.64q is unknown; there are %s", f.Kind, strings.Join(names, ", "))
	case made.kind == failRefuse && f.Operation != "":
		return made, errors.New("kind refuse takes no operation: connections are refused whatever they are for")
	case f.Operation != "" && !slices.Contains(operations, f.Operation):
		return made, fmt.Errorf("operation %.64q is unknown; there are %s", f.Operation, strings.Join(operations, ", "))
	case (made.kind == failStatus) != (f.Status != ""):
		return made, errors.New("kind status needs status, and the others have none")
	case (made.kind == failDelay) != (f.Delay != ""):
		return made, errors.New("kind delay needs delay, and the others have none")
	}
	if f.Status != "" {
		var known []string
		for _, s := range statuses {
			known = append(known, s.name)
		}
		if !slices.Contains(known, f.Status) {
			return made, fmt.Errorf("status %.64q is unknown; there are %s", f.Status, strings.Join(known, ", "))
		}
		made.status = f.Status
	}
	if f.Delay != "" {
		var err error
		if made.delay, err = time.ParseDuration(f.Delay); err != nil || made.delay <= 0 {
			return made, fmt.Errorf("delay %.64q is not a positive duration such as 500ms or 2s", f.Delay)
		}
	}
	if f.Times != nil {
		if *f.Times < 1 {
			return made, errors.New("times is not 1 or more; without it, all calls fail")
		}
		made = made.Times(*f.Times)
	}
	return made, nil
}

// addFailure makes commands fail.
func (c *control) addFailure(r *http.Request) (any, error) {
	var f failureRequest
	if err := readMembers(r, &f); err != nil {
		return nil, err
	}
	failure, err := f.failure(c.servers[0].operations())
	if err != nil {
		return nil, err
	}
	servers := c.servers
	if f.Instance != nil {
		if *f.Instance < 1 || *f.Instance > len(servers) {
			return nil, fmt.Errorf("instance is not from 1 to %d; without it, all instances fail", len(servers))
		}
		servers = servers[*f.Instance-1 : *f.Instance]
	}
	for _, s := range servers {
		s.Fail(f.Operation, failure)
	}
	return c.listFailures(r)
}

// operations returns the names of the operations and subcommands that Fail accepts.
func (s *Server) operations() []string {
	var names []string
	for _, c := range s.commands {
		names = append(names, c.operation, c.name())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *control) listFailures(*http.Request) (any, error) {
	list := []FailureState{}
	for i, s := range c.servers {
		s.mu.Lock()
		for op, f := range s.failures {
			state := FailureState{Instance: i + 1, Operation: op, Status: f.status, Times: f.times}
			for _, k := range controlKinds {
				if k.kind == f.kind {
					state.Kind = k.name
				}
			}
			if f.delay > 0 {
				state.Delay = f.delay.String()
			}
			list = append(list, state)
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b FailureState) int {
		return cmp.Or(a.Instance-b.Instance, strings.Compare(a.Operation, b.Operation))
	})
	return list, nil
}

// endFailures ends all failures. Calls that hang already go on to do so.
func (c *control) endFailures(r *http.Request) (any, error) {
	for _, s := range c.servers {
		s.mu.Lock()
		clear(s.failures)
		s.mu.Unlock()
	}
	return c.listFailures(r)
}

// newUser is a user to add.
type newUser struct {
	UserID           string `json:"userID"`
	Domain           string `json:"domain"`
	StaticPassword   string `json:"staticPassword"`
	Licenses         *int   `json:"licenses"`
	StandardLicenses *int   `json:"standardLicenses"`
}

// user checks a request and returns its user.
func (u *newUser) user() (User, error) {
	for _, m := range []struct{ name, value string }{
		{"userID", u.UserID}, {"domain", u.Domain}, {"staticPassword", u.StaticPassword},
	} {
		if m.value == "" || len(m.value) > maxUserName || strings.ContainsFunc(m.value, func(r rune) bool { return r < ' ' || r == ';' }) {
			return User{}, fmt.Errorf("%s is not 1 to %d bytes without ; and control characters", m.name, maxUserName)
		}
	}
	made := User{Name: u.UserID, Domain: u.Domain, StaticPassword: u.StaticPassword, Licenses: 1, StandardLicenses: 1}
	for _, m := range []struct {
		name  string
		value *int
		to    *int
	}{
		{"licenses", u.Licenses, &made.Licenses},
		{"standardLicenses", u.StandardLicenses, &made.StandardLicenses},
	} {
		if m.value == nil {
			continue
		}
		if *m.value < 0 || *m.value > maxUserLicenses {
			return User{}, fmt.Errorf("%s is not from 0 to %d", m.name, maxUserLicenses)
		}
		*m.to = *m.value
	}
	if made.Licenses+made.StandardLicenses == 0 {
		return User{}, errors.New("licenses and standardLicenses are both 0")
	}
	return made, nil
}

// addUser adds a user. Replicas share users, so that it is enough to tell one.
func (c *control) addUser(r *http.Request) (any, error) {
	var u newUser
	if err := readMembers(r, &u); err != nil {
		return nil, err
	}
	made, err := u.user()
	if err != nil {
		return nil, err
	}
	s := c.servers[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findUser(made.Name, made.Domain) != nil {
		return nil, &controlError{http.StatusConflict, "this user exists"}
	}
	added := &user{User: made}
	s.users = append(s.users, added)
	return added.state(), nil
}

func (c *control) listUsers(*http.Request) (any, error) {
	return c.servers[0].State().Users, nil
}

// userChange is a change of a user.
type userChange struct {
	UserID string `json:"userID"`
	Domain string `json:"domain"`
	Locked *bool  `json:"locked"`
}

// changeUser locks or unlocks a user.
func (c *control) changeUser(r *http.Request) (any, error) {
	var change userChange
	if err := readMembers(r, &change); err != nil {
		return nil, err
	}
	if change.UserID == "" || change.Locked == nil {
		return nil, errors.New("userID or locked is missing; domain can be missing if only one domain has the user")
	}
	s := c.servers[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.findUser(change.UserID, change.Domain)
	if u == nil {
		return nil, &controlError{http.StatusNotFound, "no such user, or several in different domains"}
	}
	u.wrongPasswords = 0
	if *change.Locked {
		u.wrongPasswords = maxWrongPasswords
	}
	return u.state(), nil
}

// reset makes the state of the servers that of their start. Licences get new serial numbers.
func (c *control) reset(*http.Request) (any, error) {
	shared := c.servers[0].database
	shared.mu.Lock()
	for _, s := range c.servers {
		s.clear()
	}
	shared.restoreUsers()
	shared.mu.Unlock()
	return c.servers[0].State(), nil
}
