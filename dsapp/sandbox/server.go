package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Default component types of a Server: those of the predefined client records for
// multi-device licences and for everything else.
const (
	DefaultComponentType = "DIGIPASS Gateway Provisioning DP760"
	PushComponentType    = "Push Notification Client"
)

// DefaultRequestTimeout is the default of Options.RequestTimeout.
const DefaultRequestTimeout = time.Minute

// provisioningCacheAge is the lifetime of a registration.
const provisioningCacheAge = 600 * time.Second

// Chosen by the sandbox.
const (
	maxWrongPasswords  = 3
	defaultSerialStart = 1_000_000
	maxComponentType   = 60 // characters
)

// Options of a simulated authentication server.
type Options struct {
	// Users of the server. Of several with the same name and domain, the first is used.
	Users []User
	// Now is the clock for the age of registrations and requests; time.Now if nil.
	Now func() time.Time
	// SerialStart is the number of the first licence, 1 to 9,999,999; 0 means 1,000,000.
	// There are no licences after number 9,999,999.
	SerialStart int
	// ComponentTypes are the component types of the client records; if empty,
	// DefaultComponentType and PushComponentType.
	ComponentTypes []string
	// DescriptionAttribute is the name of the attribute of PROVISIONCMD_MDL_ADD_DEVICE for
	// a device description of up to 255 characters. The real name is not public. If empty,
	// there is no such attribute.
	DescriptionAttribute string
	// RequestTimeout is how long a login or signature waits for its device; 0 means
	// DefaultRequestTimeout. Calls of application servers block no longer than that.
	RequestTimeout time.Duration
}

// User is one user of a simulated authentication server.
type User struct {
	Name               string
	Domain             string
	OrganizationalUnit string
	StaticPassword     string
	// Licenses is the maximum number of multi-device licences of the user, for 99 devices
	// each. 0 means 1, or none if the user has standard licences.
	Licenses int
	// StandardLicenses is the maximum number of standard licences of the user.
	StandardLicenses int
}

// Server is a simulated authentication server: an http.Handler for its SOAP endpoint. It
// is safe for concurrent use and keeps its state in memory.
//
// A component type suffices to authenticate a caller. Real servers check its address,
// too.
type Server struct {
	*database
	now            func() time.Time
	components     []string
	description    string // attribute of the device description
	requestTimeout time.Duration
	commands       []command

	// Caches, counters and switches of this instance, guarded by database.mu.
	registrations map[string]*registration
	pending       map[string]*pendingRequest
	calls         map[string]int
	failures      map[string]Failure
	variant       Variant
}

// A database is the state that replicas share.
type database struct {
	mu         sync.Mutex
	users      []*user
	initial    []User // of the options
	nextSerial int
}

var _ http.Handler = (*Server)(nil)

// New returns a Server without licences, registrations and requests.
func New(o Options) *Server {
	d := &database{initial: slices.Clone(o.Users), nextSerial: o.SerialStart}
	if d.nextSerial == 0 {
		d.nextSerial = defaultSerialStart
	}
	d.restoreUsers()
	s := &Server{
		database:       d,
		now:            o.Now,
		components:     slices.Clone(o.ComponentTypes),
		description:    o.DescriptionAttribute,
		requestTimeout: o.RequestTimeout,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if len(s.components) == 0 {
		s.components = []string{DefaultComponentType, PushComponentType}
	}
	if s.requestTimeout == 0 {
		s.requestTimeout = DefaultRequestTimeout
	}
	return s.start()
}

// restoreUsers makes the users those of the options, without licences.
func (d *database) restoreUsers() {
	d.users = nil
	for _, u := range d.initial {
		d.users = append(d.users, &user{User: u})
	}
}

// Replica returns another authentication server of the same deployment. Both have the same
// users, licences and devices, but their own registrations, pending requests, counters,
// failures and variants. To simulate servers with a common database, use one Server
// with several addresses.
func (s *Server) Replica() *Server {
	return (&Server{
		database:       s.database,
		now:            s.now,
		components:     s.components,
		description:    s.description,
		requestTimeout: s.requestTimeout,
	}).start()
}

// start gives s its commands and empty caches, and returns it.
func (s *Server) start() *Server {
	s.commands = slices.Concat(provisioningCommands(s.description), exchangeCommands(), authenticationCommands(), signatureCommands())
	s.pending = make(map[string]*pendingRequest)
	s.clear()
	return s
}

// clear ends pending requests as their timeout does, and empties the caches, counters and
// failures. The caller holds mu.
func (s *Server) clear() {
	for _, p := range s.pending {
		s.end(p, timedOut)
	}
	s.registrations = make(map[string]*registration)
	s.calls = make(map[string]int)
	s.failures = make(map[string]Failure)
}

// Calls returns the number of calls of a command in well-formed envelopes, including
// refused, failed and malformed ones. op is the name of an operation or of a subcommand
// such as PROVISIONCMD_MDL_REGISTER.
func (s *Server) Calls(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// EveryOperation stands for every operation in Server.Fail.
const EveryOperation = ""

// Fail makes every further call of op (an operation, a subcommand or EveryOperation) fail,
// until the failure's Times are over or Fail is called with NoFailure. The failure of a
// subcommand has precedence over that of its operation, and both over that of every operation.
func (s *Server) Fail(op string, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == NoFailure() {
		delete(s.failures, op)
		return
	}
	s.failures[op] = f
}

// takeFailure returns the failure of op and counts a call that fails with it. The caller holds
// mu.
func (s *Server) takeFailure(op string) Failure {
	f := s.failures[op]
	switch f.times {
	case 0:
	case 1:
		delete(s.failures, op)
	default:
		s.failures[op] = f.Times(f.times - 1)
	}
	return f
}

// RefuseConnections carries out FailRefuse. It has to be the ConnState of the http.Server.
func (s *Server) RefuseConnections(c net.Conn, state http.ConnState) {
	if state != http.StateNew {
		return
	}
	s.mu.Lock()
	refused := s.failures[EveryOperation].kind == failRefuse
	if refused {
		s.takeFailure(EveryOperation)
	}
	s.mu.Unlock()
	if refused {
		resetConnection(c)
	}
}

// SetVariant sets the form of all further answers.
func (s *Server) SetVariant(v Variant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.variant = v
}

// ServeHTTP answers one SOAP request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
		return
	}
	version, ok := versionOf(r.Header.Get("Content-Type"))
	if !ok {
		http.Error(w, "content type is not that of SOAP in UTF-8", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestSize))
	if err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, "request is too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "request could not be read", http.StatusBadRequest)
		return
	}

	c, children, err := s.findCommand(version, body)
	failure := s.recordCall(c)
	if failure.interrupt(r.Context(), w) {
		return
	}
	if err == nil {
		err = failure.refusal()
	}
	var data []datum
	if err == nil {
		data, err = s.perform(r.Context(), c, children)
	}
	status, answer := s.answer(version, c, failure.header(), data, err)
	w.Header().Set("Content-Type", version.contentType)
	failure.send(w, status, answer)
}

// versionOf returns the SOAP version of a content type. The charset may be missing, since
// the XML declaration may have it.
func versionOf(contentType string) (soapVersion, bool) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return soapVersion{}, false
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return soapVersion{}, false
	}
	switch media {
	case "text/xml", "application/xml":
		return soap11, true
	case "application/soap+xml":
		return soap12, true
	default:
		return soapVersion{}, false
	}
}

// findCommand reads the envelope and returns the command, and the children of the
// operation element without its subcommand. The command is nil if it is unknown. It may
// be returned together with an error.
func (s *Server) findCommand(version soapVersion, body []byte) (*command, []*element, error) {
	operation, err := readEnvelope(version, body)
	if err != nil {
		return nil, nil, err
	}

	children := operation.children
	unknown := callerError("method or namespace not recognized")
	for i := range s.commands {
		c := &s.commands[i]
		if operation.name != (xml.Name{Space: c.scenario.namespace(), Local: c.operation}) {
			continue
		}
		if c.cmd != "" {
			if len(children) == 0 || children[0].name.Local != "cmd" {
				return nil, nil, callerError("operation %s begins with the element cmd", c.operation)
			}
			if children[0].text.String() != c.cmd {
				unknown = callerError("cmd is not a subcommand of operation %s", c.operation)
				continue
			}
			children = children[1:]
		}
		return c, children, requireUnqualified(operation.children)
	}
	return nil, nil, unknown
}

// readEnvelope returns the operation element, which is the only child of the Body.
func readEnvelope(version soapVersion, data []byte) (*element, error) {
	root, err := readXML(data)
	if err != nil {
		return nil, callerError("%v", err)
	}
	if root.name.Local != "Envelope" {
		return nil, callerError("the root element is not an Envelope")
	}
	if root.name.Space != version.envelope {
		return nil, &fault{versionFault, "the namespace of the Envelope is not that of the content type's SOAP version"}
	}

	children := root.children
	if len(children) > 0 && children[0].name == (xml.Name{Space: version.envelope, Local: "Header"}) {
		for _, block := range children[0].children {
			switch block.attr(xml.Name{Space: version.envelope, Local: "mustUnderstand"}) {
			case "1", "true":
				return nil, &fault{mustUnderstandFault, "a mandatory header block is not understood"}
			}
		}
		children = children[1:]
	}
	if len(children) != 1 || children[0].name != (xml.Name{Space: version.envelope, Local: "Body"}) {
		return nil, callerError("the Envelope needs exactly one Body, after the Header if there is one")
	}
	body := children[0]
	if len(body.children) != 1 {
		return nil, callerError("the Body needs exactly one operation element")
	}
	return body.children[0], nil
}

// requireUnqualified checks that none of the elements and their descendants is in a
// namespace. The recursion is not deeper than maxDepth.
func requireUnqualified(elements []*element) error {
	for _, e := range elements {
		if e.name.Space != "" {
			return callerError("element %s must not be namespace-qualified", e.name.Local)
		}
		if err := requireUnqualified(e.children); err != nil {
			return err
		}
	}
	return nil
}

// recordCall counts a call of a command and returns the failure to simulate.
func (s *Server) recordCall(c *command) Failure {
	if c == nil {
		return NoFailure()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[c.operation]++
	if c.cmd != "" {
		s.calls[c.cmd]++
	}
	for _, op := range []string{c.name(), c.operation, EveryOperation} {
		if f := s.failures[op]; f != NoFailure() && f.kind != failRefuse {
			return s.takeFailure(op)
		}
	}
	return NoFailure()
}

// perform checks a request and carries it out. The status for an unknown component type is
// not public; the sandbox chose STAT_INVPARAM.
func (s *Server) perform(ctx context.Context, c *command, children []*element) ([]datum, error) {
	in, err := c.form.read(children)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.components, in.text[c.component]) {
		return nil, refuse("STAT_INVPARAM", 0, "no client component record for this component type")
	}
	return c.handle(s, ctx, in)
}

// answer returns the HTTP status and the envelope for the result of a request.
func (s *Server) answer(version soapVersion, c *command, header string, data []datum, err error) (int, string) {
	scenario := provisioningScenario
	if c != nil {
		scenario = c.scenario
	}
	s.mu.Lock()
	w := newWriter(scenario, s.variant)
	s.mu.Unlock()

	status, outcome := http.StatusOK, codesOf("STAT_SUCCESS")
	var stack []stackEntry
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		outcome, stack = codesOf(refused.status), refused.stack
	} else if err != nil {
		f := (*fault)(nil)
		if !errors.As(err, &f) {
			f = &fault{serverFault, "internal error"}
		}
		if status = http.StatusInternalServerError; f.kind == callerFault {
			status = version.callerStatus
		}
		w.envelope(version, header, func() { w.fault(version, f) })
		return status, w.String()
	}
	w.envelope(version, header, func() {
		name := w.p.operation + ":" + c.answerElement()
		w.open(name)
		c.form.write(w, outcome, data, stack)
		w.close(name)
	})
	return status, w.String()
}

// State is the state of a Server for developers, without passwords, activation data and
// secrets.
type State struct {
	// Calls is the number of calls of each operation and each subcommand.
	Calls map[string]int `json:"calls"`
	// Users in the order of the options.
	Users []UserState `json:"users"`
	// Registrations that have neither ended nor expired, the oldest first.
	Registrations []RegistrationState `json:"registrations"`
	// Requests that wait for their device, the oldest first.
	Requests []RequestState `json:"requests"`
}

// UserState is one user of a State.
type UserState struct {
	UserID         string         `json:"userID"`
	Domain         string         `json:"domain"`
	WrongPasswords int            `json:"wrongPasswords"`
	Locked         bool           `json:"locked"`
	Licenses       []LicenseState `json:"licenses"`
}

// LicenseState is one licence of a user.
type LicenseState struct {
	SerialNumber string        `json:"serialNumber"`
	Standard     bool          `json:"standard"`
	Devices      []DeviceState `json:"devices"`
}

// DeviceState is one authenticator of a licence.
type DeviceState struct {
	SerialNumber   string `json:"serialNumber"`
	DeviceID       uint32 `json:"deviceID"`
	Description    string `json:"description,omitempty"`
	Activated      bool   `json:"activated"`
	NotificationID string `json:"notificationID,omitempty"`
}

// RegistrationState is one pending registration.
type RegistrationState struct {
	RegistrationID string    `json:"registrationID"`
	UserID         string    `json:"userID"`
	SerialNumber   string    `json:"serialNumber"`
	ExpiresAt      time.Time `json:"expiresAt"`
}

// RequestState is one pending login or signature.
type RequestState struct {
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"`
	UserID string `json:"userID"`
	// RetrievedBy is the serial number of the authenticator that retrieved the request;
	// empty if none has.
	RetrievedBy string `json:"retrievedBy,omitempty"`
	// Awaited says that a call of an application server waits for the outcome.
	Awaited   bool      `json:"awaited"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// State returns a copy of the current state.
func (s *Server) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()

	state := State{Calls: maps.Clone(s.calls), Users: []UserState{}, Registrations: []RegistrationState{}, Requests: []RequestState{}}
	for _, u := range s.users {
		state.Users = append(state.Users, u.state())
	}
	for id, r := range s.registrations {
		state.Registrations = append(state.Registrations,
			RegistrationState{id, r.user.Name, r.license.serial, r.created.Add(provisioningCacheAge)})
	}
	slices.SortFunc(state.Registrations, func(a, b RegistrationState) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), strings.Compare(a.RegistrationID, b.RegistrationID))
	})
	for key, p := range s.pending {
		r := RequestState{Kind: p.request.Kind, Key: key, UserID: p.user.Name, Awaited: p.awaited, ExpiresAt: p.created.Add(s.requestTimeout)}
		if p.retriever != nil {
			r.RetrievedBy = p.retriever.serial
		}
		state.Requests = append(state.Requests, r)
	}
	slices.SortFunc(state.Requests, func(a, b RequestState) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), strings.Compare(a.Key, b.Key))
	})
	return state
}

// state returns a copy of the current state. The caller holds mu.
func (u *user) state() UserState {
	us := UserState{u.Name, u.Domain, u.wrongPasswords, u.locked(), []LicenseState{}}
	for _, l := range u.licenses {
		ls := LicenseState{l.serial, l.standard, []DeviceState{}}
		for _, i := range l.instances {
			ls.Devices = append(ls.Devices, DeviceState{i.serial, i.deviceID, i.description, i.activated, i.notificationID})
		}
		us.Licenses = append(us.Licenses, ls)
	}
	return us
}

// StateHandler returns a read-only handler that answers GET with the State as JSON.
func (s *Server) StateHandler() http.Handler {
	return developerHandler(func(*http.Request) any { return s.State() })
}

// PushHandler returns a read-only handler that answers GET with the Pushes as a JSON array:
// those of one device if the query has its serialNumber, else those of all.
func (s *Server) PushHandler() http.Handler {
	return developerHandler(func(r *http.Request) any { return s.Pushes(r.URL.Query().Get("serialNumber")) })
}

func developerHandler(content func(*http.Request) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET is allowed", http.StatusMethodNotAllowed)
			return
		}
		writeJSON(w, http.StatusOK, content(r))
	})
}

func writeJSON(w http.ResponseWriter, status int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(content); err != nil { // a lost connection
		panic(http.ErrAbortHandler)
	}
}
