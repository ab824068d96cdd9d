// Package restapi is the REST interface of the gateway: which services there are,
// who may call them, and how requests and answers look in JSON.
package restapi

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// The limits of a request body if none are configured: its size in bytes and the
// time it may take to arrive.
const (
	DefaultMaxBodySize = 64 << 10
	DefaultBodyTimeout = 30 * time.Second
)

// largestMaxBodySize is the greatest Config.MaxBodySize.
const largestMaxBodySize = 16 << 20

// bodyReserve is how much memory a body gets before any of it has arrived,
// whatever length it declares, in bytes. Most bodies fit.
const bodyReserve = 4 << 10

// Keys are the API keys.
type Keys interface {
	// Lookup returns the entry of the presented key in a time that does not
	// depend on which one it is.
	Lookup(key string) (apikey.Key, bool)
}

// Limiter limits how often something happens per source.
type Limiter interface {
	// Allow counts one event. If it is one too many, it returns false and the
	// time after which the next one is allowed.
	Allow(s ratelimit.Source) (ok bool, retryAfter time.Duration)
}

// FailureLimiter limits how often something goes wrong per source.
type FailureLimiter interface {
	// Blocked reports whether too much went wrong, and if so for how much longer.
	Blocked(s ratelimit.Source) (blocked bool, retryAfter time.Duration)
	// Record counts one failure.
	Record(s ratelimit.Source)
}

// InFlightLimiter limits how much goes on at the same time per source.
type InFlightLimiter interface {
	// Enter counts what begins, until leave is called. It returns false if that is
	// one too many.
	Enter(s ratelimit.Source) (leave func(), ok bool)
}

var (
	_ Keys           = (*apikey.Set)(nil)
	_ Limiter        = (*ratelimit.Limiter)(nil)
	_ FailureLimiter = (*ratelimit.Limiter)(nil)
)

// Limits bound how often the services are called, and how much goes on at the same
// time. Each may be nil. Every request with a valid key that is answered here counts
// for one of Exchanges, Proofs, Registrations and Calls, be it carried out or refused
// before anything was looked up; only what back ends have carried out besides
// registrations does not.
//
// What phones do is counted per client address and never per application: all
// phones share the key of their application, and whoever takes it out of one of
// them could use a common limit up and stop all the others. What a bank's site
// does is counted per application, since one server with a key of its own speaks
// for many users. The address is that of Config.ClientIP: behind a proxy that is
// not trusted to tell it, all clients have one.
type Limits struct {
	// FailedKeys counts requests with a wrong key per client address, not those without
	// any. An address with too many gets no further look at its keys for a while, be
	// they right or wrong.
	FailedKeys FailureLimiter
	// Exchanges and Proofs count the first and the second calls of activation
	// exchanges per client address, so that an exchange costs one of each. Only keys
	// of front ends open these services. They compute, and a wrong second call uses
	// up one of the few attempts of a registration.
	Exchanges, Proofs Limiter
	// Registrations counts registrations per application. Only keys of back ends
	// open these services. Each registration uses up a licence. Refused requests
	// with keys of back ends count, too, unless the key is not admitted from there:
	// who stole one could otherwise stop the bank.
	Registrations Limiter
	// Calls counts all other calls with keys of front ends, per client address and
	// all together: one-time passwords, pending requests, notification IDs, adding
	// devices and final calls of activations. Wrong ones lock users, and each can
	// hold a connection. Refused requests and those for the time count, too. Other
	// calls with keys of back ends do not: one server of a bank may complete the
	// activations of many users, and its key is bound to its address.
	Calls Limiter
	// RequestsInFlight counts all requests that are under way per client address,
	// except those with a key of a back end that is admitted from there.
	RequestsInFlight InFlightLimiter
	// CallsInFlight counts those of them that are with an authentication server.
	CallsInFlight InFlightLimiter
}

// Observation is what a request came to. Every value but Application comes from
// a fixed set, or is empty.
type Observation struct {
	// Service is the name of the service, such as provisioning/MdlActivate;
	// empty for a path without one.
	Service string
	// Application is the holder of the key; empty without a valid key.
	Application string
	Outcome     Outcome
	// HTTPStatus is the status of the answer; 0 if the next handler gives it.
	HTTPStatus int
	// Status is the statusCodeEnum of the answer, or the authentication server's own
	// where the answer conceals it. What is no name of at most 64 characters is left
	// out.
	Status string
	// Limit that the request was one too many for; empty if it was not.
	Limit Limit
}

// Config is what a Handler needs.
type Config struct {
	Operations Operations
	Keys       Keys
	// MaxBodySize is in bytes: 1 to 16777216, DefaultMaxBodySize if 0.
	MaxBodySize int64
	// BodyTimeout is how long a request's body may take to arrive, counted from
	// the end of its header: 10 ms to 10 min, DefaultBodyTimeout if 0. A shorter
	// ReadTimeout of the http.Server applies instead.
	BodyTimeout time.Duration
	Limits      Limits
	// RelayedExchange says that the calls of exchanges are carried out by an
	// authentication server, so that CallsInFlight counts them.
	RelayedExchange bool
	// ClientIP returns the address of the client, invalid if it is not known.
	// If nil, it is the address of the connection.
	ClientIP func(*http.Request) netip.Addr
	// Sources tells whom the limits count an address for; if nil, it is that of
	// Addresses without NAT64 prefixes of a network's own.
	Sources func(netip.Addr) ratelimit.Source
	// Authenticated is called for every request with a valid key, before
	// anything else is decided. It may be nil.
	Authenticated func(*http.Request, apikey.Key)
	// Observe is called once for every request. It may be nil.
	Observe func(*http.Request, Observation)
	// Logger is slog.Default if nil.
	Logger *slog.Logger
}

// Handler serves the services. It may be used concurrently.
type Handler struct {
	config    Config
	services  map[string]*service
	disguises disguises
	bodies    sync.Pool // of *bytes.Buffer
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler. The error names the member of c that is missing; about an
// option it is an *option.Error.
func New(c Config) (*Handler, error) {
	if c.Operations == nil {
		return nil, errors.New("operations: missing")
	}
	if c.Keys == nil {
		return nil, errors.New("keys: missing")
	}
	c.MaxBodySize = cmp.Or(c.MaxBodySize, DefaultMaxBodySize)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, DefaultBodyTimeout)
	if err := cmp.Or(
		option.Number("max_body_size", c.MaxBodySize, 1, largestMaxBodySize),
		option.Timeout("body_timeout", c.BodyTimeout),
	); err != nil {
		return nil, err
	}
	if c.ClientIP == nil {
		c.ClientIP = connectionAddress
	}
	if c.Sources == nil {
		c.Sources = new(ratelimit.AddressMapper).Source
	}
	if c.Authenticated == nil {
		c.Authenticated = func(*http.Request, apikey.Key) {}
	}
	if c.Observe == nil {
		c.Observe = func(*http.Request, Observation) {}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	services := table()
	h := &Handler{config: c, services: make(map[string]*service), disguises: newDisguises(services)}
	h.bodies.New = func() any { return new(bytes.Buffer) }
	for _, s := range services {
		h.services[s.path] = &s
	}
	return h, nil
}

// Serve answers a request for a service, one without a valid key, and one whose path
// another server may read as that of a service. Every other request is given to next
// with its body and its Authorization field untouched. If next does not handle it,
// the answer is that there is no such service; its error is returned.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) (handled bool, err error)) error {
	if r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0) {
		// The request may have come with a length as well, which net/http removes, as it
		// does with a transfer coding of HTTP/1.0. Servers in front can have read it by
		// the other one, and take what follows for something else (RFC 9112, section 6.1).
		w.Header().Add("Connection", "close")
	}
	x := &request{Handler: h, w: w, r: r, service: h.services[r.URL.Path], version: versionOf(r.URL.Path), leave: func() {}}
	if x.service != nil {
		x.version = x.service.version
	}
	defer func() { x.leave() }()
	a, mine := x.decide()
	if mine {
		x.answer(a)
		return nil
	}
	return x.pass(next)
}

// pass gives the request to next, and answers it if that does not handle it.
func (x *request) pass(next func(http.ResponseWriter, *http.Request) (bool, error)) error {
	handled := true
	defer func() {
		// Also if next panics, as a proxy does whose answer breaks off.
		if handled {
			x.observe(answer{outcome: PassedOn})
		}
	}()
	done, err := next(x.w, x.r)
	if handled = done || err != nil; !handled {
		x.answer(x.refused(answerTo(NotFound)))
	}
	return err
}

// ServeHTTP is Serve without a next handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Serve only fails with the error of next.
	_ = h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) { return false, nil })
}

// request is a request on its way through the Handler.
type request struct {
	*Handler

	w http.ResponseWriter
	r *http.Request
	// service is nil for a path without one.
	service *service
	version version
	address netip.Addr
	source  ratelimit.Source // of the address
	key     apikey.Key
	// admitted says that the key is accepted from the address.
	admitted bool
	// leave ends what RequestsInFlight counts.
	leave func()
	// waiting says that the wait for the body is limited.
	waiting bool
}

// decide returns the answer, or false if the request is for somebody else. Its body
// is then unread.
func (x *request) decide() (a answer, mine bool) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
				panic(p)
			}
			// The value of a panic can hold anything, its type and place cannot.
			x.config.Logger.LogAttrs(x.r.Context(), slog.LevelError, "panic while serving a request",
				slog.String("service", x.name()), slog.String("type", fmt.Sprintf("%T", p)), slog.Any("stack", stack()))
			a, mine = answerTo(Internal), true
		}
	}()
	if x.r.TLS != nil && !x.r.TLS.HandshakeComplete || slices.Contains(x.r.Header.Values("Early-Data"), "1") {
		// Nobody has proved yet to be at the client's address, and the request may be a
		// replay (RFC 8470). It may neither count for that address nor be trusted for it.
		// A server in front that ended TLS tells by the header field.
		return answerTo(TooEarly), true
	}
	x.address = x.config.ClientIP(x.r)
	x.source = x.config.Sources(x.address)
	a, ok := x.authenticate()
	if !x.backEnd() {
		leave, free := enter(x.config.Limits.RequestsInFlight, x.source)
		if !free {
			return answerLimited(LimitRequestsInFlight, 0), true
		}
		x.leave = leave
	}
	switch {
	case !ok:
		return a, true
	case !x.admitted:
		return x.refused(answerTo(Forbidden)), true
	case x.service != nil:
		return x.call(), true
	case x.disguises.find(x.r.URL):
		return x.refused(answerTo(NotFound)), true
	}
	return answer{}, false
}

// name is that of the service, if there is one.
func (x *request) name() string {
	if x.service == nil {
		return ""
	}
	return x.service.name()
}

// backEnd reports whether the key is that of a back end at a place of its own.
func (x *request) backEnd() bool { return x.admitted && x.key.Class == apikey.BackEnd }

// call decides on a request for a service with a valid key.
func (x *request) call() answer {
	do, a, ok := x.prepare()
	if !ok {
		return x.refused(a)
	}
	if !x.backEnd() && x.service.quota.atServers(x.config.RelayedExchange) {
		leave, free := enter(x.config.Limits.CallsInFlight, x.source)
		if !free {
			return answerLimited(LimitCallsInFlight, 0)
		}
		defer leave()
	}
	// Only what would be carried out counts for the service.
	if a, ok := x.count(x.service.quota); !ok {
		return a
	}
	result, err := do(x.r.Context(), x.config.Operations, gateway.Caller{
		Application: x.key.Name, BackEnd: x.backEnd(), Source: x.source.String(),
	})
	if err != nil {
		return answerError(x.service, err)
	}
	a = answerTo(Success)
	a.result = result
	return a
}

// prepare checks a request for a service. It returns what carries it out, or the
// answer if that is refused.
func (x *request) prepare() (do run, a answer, ok bool) {
	if !slices.Contains(x.service.classes, x.key.Class) {
		return nil, answerTo(Forbidden), false
	}
	if x.r.Method != http.MethodPost {
		return nil, answerTo(MethodNotAllowed), false
	}
	x.limitWait()
	body := x.bodies.Get().(*bytes.Buffer)
	defer x.forget(body)
	if a, ok := x.read(body); !ok {
		return nil, a, false
	}
	var members map[string]any
	var err error
	if body.Len() > 0 || !x.service.bodyOptional {
		members, err = decodeObject(body.Bytes())
	}
	if err == nil {
		do, err = x.service.prepare(members)
	}
	if err != nil {
		return nil, answerError(x.service, err), false
	}
	return do, answer{}, true
}

// refused counts a request with a valid key that is refused before anything was
// looked up. It returns the answer, which is another one if it was one too many.
func (x *request) refused(a answer) answer {
	quota := calls
	if x.backEnd() {
		quota = registrations
	}
	if limited, ok := x.count(quota); !ok {
		return limited
	}
	return a
}

// count counts a request. It returns the answer if it is one too many.
func (x *request) count(q quota) (answer, bool) {
	limits := x.config.Limits
	limit, limiter, source := LimitCalls, limits.Calls, x.source
	switch q {
	case exchanges:
		limit, limiter = LimitExchanges, limits.Exchanges
	case proofs:
		limit, limiter = LimitExchanges, limits.Proofs
	case registrations:
		limit, limiter, source = LimitRegistrations, limits.Registrations, ratelimit.ApplicationSource(x.key.Name)
	case calls, unasked:
		if x.backEnd() {
			return answer{}, true
		}
	}
	if limiter == nil {
		return answer{}, true
	}
	if ok, retryAfter := limiter.Allow(source); !ok {
		return answerLimited(limit, retryAfter), false
	}
	return answer{}, true
}

// enter is Enter of a limiter that may be nil.
func enter(l InFlightLimiter, s ratelimit.Source) (leave func(), ok bool) {
	if l == nil {
		return func() {}, true
	}
	return l.Enter(s)
}

// authenticate finds the key that came with a request: the user name of HTTP
// Basic authentication with an empty password (RFC 7617). A missing and a wrong
// key cannot be told apart by the answer.
func (x *request) authenticate() (answer, bool) {
	failed := x.config.Limits.FailedKeys
	if failed != nil {
		if blocked, retryAfter := failed.Blocked(x.source); blocked {
			return answerLimited(LimitFailedKeys, retryAfter), false
		}
	}
	offered := x.r.Header.Values("Authorization")
	name, password, ok := x.r.BasicAuth()
	if len(offered) > 1 || password != "" {
		ok = false
	}
	key, known := x.config.Keys.Lookup(name)
	if ok && known {
		x.key, x.admitted = key, key.Permits(x.address)
		x.config.Authenticated(x.r, key)
		return answer{}, true
	}
	// Many clients send a request without a key first, and repeat it when they are asked
	// for one.
	if failed != nil && len(offered) > 0 {
		failed.Record(x.source)
	}
	return answerTo(Unauthenticated), false
}

// limitWait has the body of a request arrive in time or not at all. It must not
// be called for a request that somebody else is to read.
//
// The deadline ends by itself. In HTTP/2 it is that of the stream, and means
// nothing once the body is there. In HTTP/1 it is that of the connection, and
// net/http ends it when it meets the end of the body. If the body is not read, it
// still applies to what net/http discards of it before it answers.
func (x *request) limitWait() {
	if x.waiting {
		return
	}
	x.waiting = true
	if asks(x.r) {
		// A client that was not told to send its body may not send it, and need not
		// wait for what is discarded of it. Whoever reads the body takes this back.
		x.w.Header().Add("Connection", "close")
	}
	// In HTTP/1 net/http waits for the next request then: to miss a deadline would
	// mean that the client is gone, and cancel this one.
	if x.r.ContentLength == 0 && x.r.ProtoMajor == 1 {
		return
	}
	server, ok := x.r.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && server.ReadTimeout > 0 && server.ReadTimeout <= x.config.BodyTimeout {
		return
	}
	// A ResponseWriter without deadlines leaves them to whoever made it.
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(x.config.BodyTimeout))
}

// arrived takes back, once the body was read, what limitWait did.
func arrived(w http.ResponseWriter, r *http.Request) {
	if asks(r) {
		header := w.Header()
		header["Connection"] = slices.Delete(header["Connection"], len(header["Connection"])-1, len(header["Connection"]))
	}
	// Somebody may have read the body before, so that net/http waits for the next
	// request by now. A server with a deadline of its own would get that one here.
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && server.ReadTimeout == 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
}

// asks reports whether the client sends the body of a request only after it was
// told to go on (RFC 9110, section 10.1.1). In HTTP/2 nobody waits for the body.
func asks(r *http.Request) bool { return r.ProtoMajor == 1 && r.Header.Get("Expect") != "" }

// forget gives the buffer of a body back, without the passwords that were in it. One
// that is larger than usual is not kept.
func (h *Handler) forget(body *bytes.Buffer) {
	if body.Cap() > 2*DefaultMaxBodySize {
		return
	}
	clear(body.Bytes())
	body.Reset()
	h.bodies.Put(body)
}

// read checks the media type and reads the body of a request.
func (x *request) read(body *bytes.Buffer) (answer, bool) {
	optional := x.service.bodyOptional
	// Whether an optional body is there is known after reading only.
	if !optional && !isJSON(x.r.Header) {
		return answerTo(UnsupportedMedia), false
	}
	if x.r.ContentLength > x.config.MaxBodySize {
		return answerTo(TooLarge), false
	}
	// The declared length is a claim: what follows is reserved as it arrives.
	body.Grow(int(min(max(x.r.ContentLength, 0), bodyReserve)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(x.w, x.r.Body, x.config.MaxBodySize)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return answerTo(TooLarge), false
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answerTo(TooSlow), false
		}
		return answerError(x.service, bodyError("could not be read")), false
	}
	arrived(x.w, x.r)
	if optional && body.Len() > 0 && len(x.r.Header.Values("Content-Type")) > 0 && !isJSON(x.r.Header) {
		return answerTo(UnsupportedMedia), false
	}
	return answer{}, true
}

// isJSON reports whether a body with this header is JSON as it is: in UTF-8, under
// whatever name, and not encoded further.
func isJSON(header http.Header) bool {
	values := header.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	media, parameters, err := mime.ParseMediaType(values[0])
	if err != nil || media != "application/json" {
		return false
	}
	if charset, ok := parameters["charset"]; ok && !slices.Contains([]string{"utf-8", "utf8", "us-ascii", "ascii"}, strings.ToLower(charset)) {
		return false
	}
	for _, coding := range header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	return true
}

// answer sends an answer and reports it.
func (x *request) answer(a answer) {
	x.limitWait()
	x.observe(a)
	body := encode(x.version, a.codes, a.result, a.description)
	header := x.w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	switch a.outcome {
	case Unauthenticated:
		header.Set("WWW-Authenticate", `Basic realm="DSAPP Gateway", charset="UTF-8"`)
	case MethodNotAllowed:
		header.Set("Allow", http.MethodPost)
	}
	if a.retryAfter > 0 {
		header.Set("Retry-After", seconds(a.retryAfter))
	}
	x.w.WriteHeader(a.status)
	// Nobody is left to be told that the client is gone.
	_, _ = x.w.Write(body)
}

// observe reports what the request came to.
func (x *request) observe(a answer) {
	o := Observation{
		Service: x.name(), Application: x.key.Name, Outcome: a.outcome, HTTPStatus: a.status, Status: statusName(cmp.Or(a.reason, a.codes.StatusCodeEnum)), Limit: a.limit,
	}
	x.config.Observe(x.r, o)
}

// versionOf tells the version of a path without a service: version 1 has four
// families of services, everything else is answered in the current shape.
func versionOf(path string) version {
	for _, family := range []string{"activation", "auth", "push", "notification"} {
		if rest, ok := strings.CutPrefix(path, "/rest/"+family); ok && (rest == "" || rest[0] == '/') {
			return v1
		}
	}
	return v2
}

// statusName returns s if it can be the name of a status.
func statusName(s string) string {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_') }) {
		return ""
	}
	return s
}

// connectionAddress is the address of the other end of the connection.
func connectionAddress(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// stack lists where a panic came from, without the arguments that a printed
// stack has.
func stack() []string {
	var counters [32]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])])
	var lines []string
	for {
		frame, more := frames.Next()
		lines = append(lines, fmt.Sprintf("%s:%d", frame.Function, frame.Line))
		if !more {
			return lines
		}
	}
}
