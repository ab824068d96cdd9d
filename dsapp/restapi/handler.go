// Package restapi is the REST interface of the gateway: it routes requests to services,
// authenticates and limits callers, and decodes requests from and encodes answers to
// JSON.
package restapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
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
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// Default limits of a request body: its size in bytes and the time until it has
// arrived.
const (
	DefaultMaxBodySize = 64 << 10
	DefaultBodyTimeout = 30 * time.Second
)

// largestMaxBodySize is the largest accepted Config.MaxBodySize.
const largestMaxBodySize = 16 << 20

// bodyReserve is the size in bytes of the buffer that is allocated for a body before
// any of it has arrived, whatever length is declared. Most bodies fit.
const bodyReserve = 4 << 10

// Keys finds API keys.
type Keys interface {
	// Lookup returns the entry of the presented key. Its running time must not depend
	// on which key matches.
	Lookup(key string) (apikey.Key, bool)
}

// Limiter limits the rate of events per source.
type Limiter interface {
	// Allow counts one event. If the event exceeds the limit, Allow returns false and
	// the time after which the next event will be allowed.
	Allow(s ratelimit.Source) (ok bool, retryAfter time.Duration)
}

// FailureLimiter limits the rate of failures per source.
type FailureLimiter interface {
	// Blocked reports whether the source has exceeded the limit, and if so for how much
	// longer it stays blocked.
	Blocked(s ratelimit.Source) (blocked bool, retryAfter time.Duration)
	// Record counts one failure.
	Record(s ratelimit.Source)
}

// InFlightLimiter limits the number of concurrent requests per source.
type InFlightLimiter interface {
	// Enter counts a request until its place is left. It returns false if the request
	// exceeds the limit.
	Enter(s ratelimit.Source) (p ratelimit.Place, ok bool)
}

var (
	_ Keys           = (*apikey.Set)(nil)
	_ Limiter        = (*ratelimit.Limiter)(nil)
	_ FailureLimiter = (*ratelimit.Limiter)(nil)
)

// Limits are the limits of the rate and the number of concurrent requests. Each may be
// nil, for no limit. Every request with a valid key that the Handler answers counts
// towards one of Exchanges, Proofs, Registrations and Calls, whether it is carried out
// or refused. The exception are requests of back ends that are carried out and are no
// registrations.
//
// Requests of phones are counted per client address and never per application. All
// phones share the key of their application: somebody who extracts it from one phone
// could otherwise exhaust the limit for all phones. Requests of a bank's site are
// counted per application, since one server acts for many users. The client address
// is that of Config.ClientIP. Behind a proxy that is not trusted to tell it, all clients
// have the same one.
type Limits struct {
	// FailedKeys counts requests with a wrong key per client address. Requests without
	// a key do not count. While an address exceeds the limit, all its requests are
	// refused, also those with a right key.
	FailedKeys FailureLimiter
	// Exchanges and Proofs count the first and the second calls of activation
	// exchanges per client address; one exchange takes one of each. Only front-end keys
	// may call these services. They take computing time, and a wrong second call uses
	// up one of the few attempts of a registration.
	Exchanges, Proofs Limiter
	// Registrations counts registrations per application. Only back-end keys may call
	// these services. Each registration uses up a licence. Refused requests with
	// back-end keys count, too, unless the key is not accepted from the client's
	// address: somebody with a stolen key could otherwise lock out the bank.
	Registrations Limiter
	// Calls counts all other calls with front-end keys together, per client address:
	// one-time passwords, pending requests, notification IDs, adding devices, final
	// calls of activations, the server's time and refused requests. Wrong calls lock
	// users, and each call can occupy a connection. Calls with back-end keys do not
	// count: one server of a bank may complete the activations of many users, and its
	// key is bound to its address.
	Calls Limiter
	// RequestsInFlight counts all concurrent requests per client address, except those
	// with a back-end key that is accepted from that address.
	RequestsInFlight InFlightLimiter
	// CallsInFlight counts those of them that an authentication server is carrying out.
	CallsInFlight InFlightLimiter
}

// Observation is the result of a request, for logs and metrics. Every value but
// Application comes from a fixed set, or is empty.
type Observation struct {
	// Service is the name of the service, such as provisioning/MdlActivate;
	// empty for a path without one.
	Service string
	// Application is the holder of the key; empty if there was no valid key.
	Application string
	Outcome     Outcome
	// HTTPStatus is the status of the answer; 0 if the request was passed on.
	HTTPStatus int
	// Status is the statusCodeEnum of the answer, or that of the authentication server
	// where the answer conceals it. It is empty if the authentication server's is longer
	// than 64 characters or consists of others than A-Z, 0-9 and '_'.
	Status string
	// Limit is the limit that the request exceeded, if any.
	Limit Limit
	// Duration is the time from the end of the request's header to the end of the answer,
	// be it the Handler's or that of the next handler.
	Duration time.Duration
}

// Config configures a Handler.
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
	// RelayedExchange means that an authentication server carries out the calls of
	// activation exchanges. CallsInFlight counts them then.
	RelayedExchange bool
	// Origins are those of the web pages whose scripts may call the services for front-end
	// keys.
	Origins Origins
	// ClientIP returns the address of the client, or the zero netip.Addr if it is not
	// known. If ClientIP is nil, the remote address of the connection is used.
	ClientIP func(*http.Request) netip.Addr
	// Source returns the source that the limits count an address for. If it is nil, that
	// of the zero ratelimit.AddressMapper is used.
	Source func(netip.Addr) ratelimit.Source
	// Authenticated is called for every request with a valid key, before any other
	// check. It may be nil.
	Authenticated func(*http.Request, apikey.Key)
	// Observe is called once for every request, after the answer was written. It may be
	// nil.
	Observe func(*http.Request, Observation)
	// Logger is slog.Default if nil.
	Logger *slog.Logger
}

// Handler answers requests for the services. It may be used concurrently.
type Handler struct {
	config   Config
	services map[string]*Service // by path
	aliases  pathAliases
	bodies   sync.Pool // of *bytes.Buffer
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler. An error about an option of the configuration is an
// *option.Error; other errors name the missing member of c.
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
	if c.Source == nil {
		c.Source = new(ratelimit.AddressMapper).Source
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
	h := &Handler{config: c, services: make(map[string]*Service), aliases: newPathAliases(services)}
	h.bodies.New = func() any { return new(bytes.Buffer) }
	for _, s := range services {
		h.services[s.Path] = &s
	}
	return h, nil
}

// Serve answers requests for services, requests without a valid key, and requests for
// aliases of services (see pathAliases). It passes every other request on to next, with
// its body unread and its Authorization field unchanged. If next reports that it did not
// handle the request, Serve answers with status 404. It returns the error of next.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) (handled bool, err error)) error {
	if r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0) {
		// The request may also have had a Content-Length, which net/http removes, or, in
		// HTTP/1.0, a Transfer-Encoding. A proxy may have delimited the body by that one, and
		// take what follows for another request (RFC 9112, section 6.1).
		w.Header().Add("Connection", "close")
	}
	x := &request{Handler: h, w: w, r: r, began: time.Now(), service: h.services[r.URL.Path]}
	if x.service != nil {
		x.version = x.service.Version
	} else {
		x.version = versionOf(r.URL.Path)
	}
	if x.answerPreflight() {
		return nil
	}
	defer func() { x.place.Leave() }()
	a, answered := x.decide()
	if answered {
		x.answer(a)
		return nil
	}
	return x.passOn(next)
}

// passOn passes the request on to next. It answers the request if next does not handle
// it.
func (x *request) passOn(next func(http.ResponseWriter, *http.Request) (bool, error)) error {
	handled := true
	defer func() {
		// next may panic: a proxy does so if the answer of its server ends early.
		if handled {
			x.observe(answer{outcome: PassedOn})
		}
	}()
	done, err := next(x.w, x.r)
	if handled = done || err != nil; !handled {
		x.answer(x.countRefused(newAnswer(NotFound)))
	}
	return err
}

// ServeHTTP is Serve with a next handler that handles nothing.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Serve returns only errors of next.
	_ = h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) { return false, nil })
}

// request is a request that the Handler is processing.
type request struct {
	*Handler

	w       http.ResponseWriter
	r       *http.Request
	began   time.Time
	service *Service // nil if the path is that of no service
	version Version
	address netip.Addr
	source  ratelimit.Source // of the address
	key     apikey.Key
	// admitted means that the key is accepted from the address.
	admitted bool
	// idempotencyKey is empty if there is none. body is the hash of the body then.
	idempotencyKey form.IdempotencyKey
	body           [sha256.Size]byte
	// place is that among RequestsInFlight.
	place           ratelimit.Place
	bodyDeadlineSet bool
}

// decide returns the answer to the request, or false if it is to be passed on. The body
// is unread then.
func (x *request) decide() (a answer, answered bool) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
				panic(p)
			}
			// The value of a panic may contain secrets; its type and stack do not.
			x.config.Logger.LogAttrs(x.r.Context(), slog.LevelError, "panic while serving a request",
				slog.String("service", x.serviceName()), slog.String("type", fmt.Sprintf("%T", p)), slog.Any("stack", stack()))
			a, answered = newAnswer(Internal), true
		}
	}()
	if x.r.TLS != nil && !x.r.TLS.HandshakeComplete || slices.Contains(x.r.Header.Values("Early-Data"), "1") {
		// The client has not proved its address yet, and the request may be a replay
		// (RFC 8470). So it must neither count for that address nor profit from it. A
		// proxy that terminates TLS tells early data by the header field.
		return newAnswer(TooEarly), true
	}
	x.address = x.config.ClientIP(x.r)
	x.source = x.config.Source(x.address)
	a, ok := x.authenticate()
	if !x.backEnd() {
		var free bool
		if x.place, free = enter(x.config.Limits.RequestsInFlight, x.source); !free {
			return limitedAnswer(LimitRequestsInFlight, 0), true
		}
	}
	switch {
	case !ok:
		return a, true
	case !x.admitted:
		return x.countRefused(newAnswer(Forbidden)), true
	case x.service != nil:
		return x.call(), true
	case x.aliases.match(x.r.URL):
		return x.countRefused(newAnswer(NotFound)), true
	}
	return answer{}, false
}

// serviceName returns the name of the service, empty if there is none.
func (x *request) serviceName() string {
	if x.service == nil {
		return ""
	}
	return x.service.Name()
}

// backEnd reports whether the request has a back-end key that is accepted from the
// client's address.
func (x *request) backEnd() bool { return x.admitted && x.key.Class == apikey.BackEnd }

// call carries out a request for a service, with a valid key, and returns the answer.
func (x *request) call() answer {
	do, a, ok := x.prepare()
	if !ok {
		return x.countRefused(a)
	}
	if !x.backEnd() && x.service.quota.usesServers(x.config.RelayedExchange) {
		place, free := enter(x.config.Limits.CallsInFlight, x.source)
		if !free {
			return limitedAnswer(LimitCallsInFlight, 0)
		}
		defer place.Leave()
	}
	// Refused requests are counted by countRefused instead.
	if a, ok := x.count(x.service.quota); !ok {
		return a
	}
	result, err := do(x.r.Context(), x.config.Operations, gateway.Caller{
		Application: x.key.Name, BackEnd: x.backEnd(), Profile: x.key.Profile, Source: x.source.String(), IdempotencyKey: x.idempotencyKey, Body: x.body,
	})
	if err != nil {
		return errorAnswer(x.service, err)
	}
	a = newAnswer(Success)
	a.result = result
	return a
}

// prepare checks a request for a service. It returns the function that carries it out,
// or false and the answer if the request is refused.
func (x *request) prepare() (do run, a answer, ok bool) {
	if !slices.Contains(x.service.Classes, x.key.Class) {
		return nil, newAnswer(Forbidden), false
	}
	if x.r.Method != http.MethodPost {
		return nil, newAnswer(MethodNotAllowed), false
	}
	x.setBodyDeadline()
	body := x.bodies.Get().(*bytes.Buffer)
	defer x.recycle(body)
	if a, ok := x.read(body); !ok {
		return nil, a, false
	}
	var sent members
	err := x.readKey(body.Bytes())
	if err == nil && (body.Len() > 0 || !x.service.BodyOptional) {
		sent, err = decodeObject(body.Bytes())
	}
	if err == nil {
		do, err = x.service.prepare(sent)
	}
	if err != nil {
		return nil, errorAnswer(x.service, err), false
	}
	return do, answer{}, true
}

// countRefused counts a request with a valid key that is refused with answer a. It
// returns a, or another answer if the request exceeds the limit.
func (x *request) countRefused(a answer) answer {
	quota := calls
	if x.backEnd() {
		quota = registrations
	}
	if limited, ok := x.count(quota); !ok {
		return limited
	}
	return a
}

// count counts a request. If the request exceeds the limit, it returns false and the
// answer.
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
	case calls, localCalls:
		if x.backEnd() {
			return answer{}, true
		}
	}
	if limiter == nil {
		return answer{}, true
	}
	if ok, retryAfter := limiter.Allow(source); !ok {
		return limitedAnswer(limit, retryAfter), false
	}
	return answer{}, true
}

// enter calls Enter of a limiter, which may be nil.
func enter(l InFlightLimiter, s ratelimit.Source) (p ratelimit.Place, ok bool) {
	if l == nil {
		return ratelimit.Place{}, true
	}
	return l.Enter(s)
}

// authenticate looks up the key of the request, which is the user name of HTTP Basic
// authentication with an empty password (RFC 7617). If there is no valid key, it returns
// false and an answer that is the same for a missing and a wrong key.
func (x *request) authenticate() (answer, bool) {
	failed := x.config.Limits.FailedKeys
	if failed != nil {
		if blocked, retryAfter := failed.Blocked(x.source); blocked {
			return limitedAnswer(LimitFailedKeys, retryAfter), false
		}
	}
	credentials := x.r.Header.Values("Authorization")
	name, password, ok := x.r.BasicAuth()
	if len(credentials) > 1 || password != "" {
		ok = false
	}
	key, known := x.config.Keys.Lookup(name)
	if ok && known {
		x.key, x.admitted = key, key.Permits(x.address)
		x.config.Authenticated(x.r, key)
		return answer{}, true
	}
	// Requests without credentials do not count: many HTTP clients send them only after
	// a 401.
	if failed != nil && len(credentials) > 0 {
		failed.Record(x.source)
	}
	return newAnswer(Unauthenticated), false
}

// setBodyDeadline sets a read deadline for the body, once. It must not be called for a
// request that is passed on.
//
// The deadline need not be cleared. In HTTP/2 it is that of the stream and has no effect
// once the body has arrived. In HTTP/1 it is that of the connection, and net/http clears
// it at the end of the body. If the body is not read here, the deadline applies to the
// part that net/http reads and discards before it answers.
func (x *request) setBodyDeadline() {
	if x.bodyDeadlineSet {
		return
	}
	x.bodyDeadlineSet = true
	if expectsContinue(x.r) {
		// A client that gets no 100 (Continue) may never send its body, so the connection
		// cannot be used again. clearBodyDeadline undoes this once the body was read.
		x.w.Header().Add("Connection", "close")
	}
	// Without a body, net/http in HTTP/1 is already reading the next request. It would
	// take a missed deadline for a lost connection and cancel this request.
	if x.r.ContentLength == 0 && x.r.ProtoMajor == 1 {
		return
	}
	server, ok := x.r.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && server.ReadTimeout > 0 && server.ReadTimeout <= x.config.BodyTimeout {
		return
	}
	// The error is that the ResponseWriter does not support deadlines.
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(x.config.BodyTimeout))
}

// clearBodyDeadline undoes setBodyDeadline after the body was read.
func clearBodyDeadline(w http.ResponseWriter, r *http.Request) {
	if expectsContinue(r) {
		header := w.Header()
		header["Connection"] = slices.Delete(header["Connection"], len(header["Connection"])-1, len(header["Connection"]))
	}
	// If an earlier handler has read the body, net/http is already reading the next request in
	// HTTP/1 and will not clear the deadline. With a ReadTimeout it may have set another deadline
	// for that request, which must stay. In HTTP/2, clearing it costs a message to the connection.
	if r.ProtoMajor > 1 {
		return
	}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && server.ReadTimeout == 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
}

// expectsContinue reports whether the client waits for 100 (Continue) before it sends the
// body (RFC 9110, section 10.1.1). In HTTP/2 this does not affect the connection.
func expectsContinue(r *http.Request) bool { return r.ProtoMajor == 1 && r.Header.Get("Expect") != "" }

// recycle returns the buffer of a body to the pool and clears it, since it may hold
// passwords. A large buffer is dropped.
func (h *Handler) recycle(body *bytes.Buffer) {
	if body.Cap() > 2*DefaultMaxBodySize {
		return
	}
	clear(body.Bytes())
	body.Reset()
	h.bodies.Put(body)
}

// read checks the media type and reads the body of a request.
func (x *request) read(body *bytes.Buffer) (answer, bool) {
	optional := x.service.BodyOptional
	// Whether an optional body is empty is known only after reading it.
	if !optional && !isJSON(x.r.Header) {
		return newAnswer(UnsupportedMedia), false
	}
	if x.r.ContentLength > x.config.MaxBodySize {
		return newAnswer(TooLarge), false
	}
	// The declared length may be false, so the buffer grows with what arrives.
	body.Grow(int(min(max(x.r.ContentLength, 0), bodyReserve)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(x.w, x.r.Body, x.config.MaxBodySize)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return newAnswer(TooLarge), false
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return newAnswer(TooSlow), false
		}
		return errorAnswer(x.service, bodyError("could not be read")), false
	}
	clearBodyDeadline(x.w, x.r)
	if optional && body.Len() > 0 && len(x.r.Header.Values("Content-Type")) > 0 && !isJSON(x.r.Header) {
		return newAnswer(UnsupportedMedia), false
	}
	return answer{}, true
}

// isJSON reports whether a header declares the body as JSON in UTF-8, or a subset of it,
// without a content coding.
func isJSON(header http.Header) bool {
	values := header.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	// Nearly every client sends this.
	if values[0] != "application/json" {
		media, parameters, err := mime.ParseMediaType(values[0])
		if err != nil || media != "application/json" {
			return false
		}
		if charset, ok := parameters["charset"]; ok && !form.IsUTF8(charset) {
			return false
		}
	}
	for _, coding := range header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	return true
}

// answerHeader are the names of the fields that every answer has.
var answerHeader = [...]string{"Content-Type", "Cache-Control", "X-Content-Type-Options", "Content-Length"}

// answer writes an answer and reports it to Observe.
func (x *request) answer(a answer) {
	defer x.observe(a)
	x.setBodyDeadline()
	body := encode(x.version, a.codes, a.result, a.description)
	header := x.w.Header()
	values := [...]string{"application/json", "no-store", "nosniff", strconv.Itoa(len(body))}
	for i, name := range answerHeader {
		header[name] = values[i : i+1 : i+1]
	}
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
	// The only error is a lost connection.
	_, _ = x.w.Write(body)
}

// observe reports the result of the request to Observe.
func (x *request) observe(a answer) {
	x.config.Observe(x.r, Observation{
		Service: x.serviceName(), Application: x.key.Name, Outcome: a.outcome, HTTPStatus: a.status,
		Status: statusName(cmp.Or(a.observedStatus, a.codes.StatusCodeEnum)), Limit: a.limit,
		Duration: time.Since(x.began),
	})
}

// versionOf returns the version in which requests for a path that is no service are
// answered: version 1 below the four prefixes of its services, else version 2.
func versionOf(path string) Version {
	for _, prefix := range []string{"activation", "auth", "push", "notification"} {
		if rest, ok := strings.CutPrefix(path, "/rest/"+prefix); ok && (rest == "" || rest[0] == '/') {
			return V1
		}
	}
	return V2
}

// statusName returns s if it has the form of a status name, else an empty string, so
// that no authentication server can put arbitrary text into logs and metrics.
func statusName(s string) string {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_') }) {
		return ""
	}
	return s
}

// connectionAddress returns the remote address of the connection.
func connectionAddress(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// stack returns the functions and lines of a panic's stack, without the arguments that
// debug.Stack prints.
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
