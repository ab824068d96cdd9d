// Package restapi is the REST interface of the gateway: which services there are,
// who may call them, and how requests and answers look in JSON.
package restapi

import (
	"bytes"
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
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// The limits of a request body if none are configured: its size in bytes and the
// time it may take to arrive.
const (
	DefaultMaxBodySize = 64 << 10
	DefaultBodyTimeout = 30 * time.Second
)

// bodyReserve is how much memory a body gets before any of it has arrived,
// whatever length it declares, in bytes. Most bodies fit.
const bodyReserve = 4 << 10

// Keys are the API keys.
type Keys interface {
	// Lookup returns the entry of the presented key in a time that does not
	// depend on which one it is.
	Lookup(key string) (apikey.Key, bool)
}

// Limiter limits how often something happens per key.
type Limiter interface {
	// Allow counts one event. If it is one too many, it returns false and the
	// time after which the next one is allowed.
	Allow(key string) (ok bool, retryAfter time.Duration)
}

// FailureLimiter limits how often something goes wrong per key.
type FailureLimiter interface {
	// Blocked reports whether too much went wrong, and if so for how much longer.
	Blocked(key string) (blocked bool, retryAfter time.Duration)
	// Record counts one failure.
	Record(key string)
}

var (
	_ Keys           = (*apikey.Set)(nil)
	_ Limiter        = (*ratelimit.Limiter)(nil)
	_ FailureLimiter = (*ratelimit.Limiter)(nil)
)

// Limits bound how often the services are called. Each may be nil. Calls that
// are not carried out, such as malformed ones, are not counted.
//
// What phones do is counted per client address and never per application: all
// phones share the key of their application, and whoever takes it out of one of
// them could use a common limit up and stop all the others. What a bank's site
// does is counted per application, since one server with a key of its own speaks
// for many users. The address is that of Config.ClientIP: behind a proxy that is
// not trusted to tell it, all clients have one.
type Limits struct {
	// FailedKeys counts requests without a valid key per client address, as
	// ratelimit.AddressKey has it. An address with too many gets no further look
	// at its keys for a while, be they right or wrong.
	FailedKeys FailureLimiter
	// Exchanges counts the calls of activation exchanges per client address, the
	// first and the second ones each by themselves. Only keys of front ends open
	// these services. They compute, and a wrong second call uses up one of the
	// few attempts of a registration.
	Exchanges Limiter
	// Registrations counts registrations per application. Only keys of back ends
	// open these services. Each registration uses up a licence.
	Registrations Limiter
	// Calls counts the calls of all other services that reach an authentication
	// server, per client address and all together: one-time passwords, pending
	// requests, notification IDs, adding devices and final calls of activations.
	// Wrong ones lock users, and each can hold a connection. Only calls with keys
	// of front ends count: one server of a bank may complete the activations of
	// many users, and its key is bound to its address.
	Calls Limiter
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
	// Status is the statusCodeEnum of the answer. An authentication server's own
	// is relayed, and reported here if it is a name of at most 64 characters.
	Status string
	// Limit that the request was one too many for; empty if it was not.
	Limit Limit
}

// Config is what a Handler needs.
type Config struct {
	Operations Operations
	Keys       Keys
	// MaxBodySize is in bytes; DefaultMaxBodySize if 0.
	MaxBodySize int64
	// BodyTimeout is how long a request's body may take to arrive, counted from
	// the end of its header; DefaultBodyTimeout if 0. A shorter ReadTimeout of the
	// http.Server applies instead.
	BodyTimeout time.Duration
	Limits      Limits
	// ClientIP returns the address of the client, invalid if it is not known.
	// If nil, it is the address of the connection.
	ClientIP func(*http.Request) netip.Addr
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
	config   Config
	services map[string]*service
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler. The error names the member of c that is missing or not
// acceptable.
func New(c Config) (*Handler, error) {
	if c.Operations == nil {
		return nil, errors.New("operations: missing")
	}
	if c.Keys == nil {
		return nil, errors.New("keys: missing")
	}
	if c.MaxBodySize < 0 {
		return nil, errors.New("maximum body size: must not be negative")
	}
	if c.MaxBodySize == 0 {
		c.MaxBodySize = DefaultMaxBodySize
	}
	if c.BodyTimeout < 0 {
		return nil, errors.New("body timeout: must not be negative")
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = DefaultBodyTimeout
	}
	if c.ClientIP == nil {
		c.ClientIP = connectionAddress
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
	h := &Handler{config: c, services: make(map[string]*service)}
	for _, s := range table() {
		h.services[s.path] = &s
	}
	return h, nil
}

// Serve answers a request for a service and for a request without a valid key.
// Every other request is given to next with its body and its Authorization field
// untouched; what next returns is returned.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) error) error {
	o := Observation{}
	s := h.services[r.URL.Path]
	if s != nil {
		o.Service = s.name()
		h.limitWait(w, r)
	}
	a, done := h.answer(w, r, s, &o)
	if !done {
		o.Outcome = PassedOn
		h.config.Observe(r, o)
		return next(w, r)
	}
	if s == nil {
		h.limitWait(w, r)
	}
	h.write(w, r, s, a, o)
	return nil
}

// ServeHTTP is Serve without a next handler: every path without a service is
// answered with WriteNotFound.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Serve only fails with the error of next.
	_ = h.Serve(w, r, func(w http.ResponseWriter, r *http.Request) error {
		h.WriteNotFound(w, r)
		return nil
	})
}

// WriteNotFound answers a request whose path has no service and that no other
// handler took.
func (h *Handler) WriteNotFound(w http.ResponseWriter, r *http.Request) {
	h.limitWait(w, r)
	h.respond(w, versionOf(r.URL.Path), answerTo(NotFound))
}

// answer decides on a request. It returns false if the request is not for a
// service but has a valid key; the body is then unread.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, s *service, o *Observation) (a answer, done bool) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
				panic(p)
			}
			// The value of a panic can hold anything, its type and place cannot.
			h.config.Logger.LogAttrs(r.Context(), slog.LevelError, "panic while serving a request",
				slog.String("service", o.Service), slog.String("type", fmt.Sprintf("%T", p)), slog.Any("stack", stack()))
			a, done = answerTo(Internal), true
		}
	}()

	address := h.config.ClientIP(r)
	source := ratelimit.AddressKey(address)
	key, a, ok := h.authenticate(r, source)
	if !ok {
		return a, true
	}
	o.Application = key.Name
	h.config.Authenticated(r, key)
	if !key.Permits(address) || s != nil && !slices.Contains(s.classes, key.Class) {
		return answerTo(Forbidden), true
	}
	if s == nil {
		return answer{}, false
	}
	if r.Method != http.MethodPost {
		return answerTo(MethodNotAllowed), true
	}
	body, a, ok := h.body(w, r, s)
	if !ok {
		return a, true
	}
	var members map[string]any
	if len(body) > 0 || !s.bodyOptional {
		var err error
		if members, err = decodeObject(body); err != nil {
			return answerError(s, err), true
		}
	}
	do, err := s.prepare(members)
	if err != nil {
		return answerError(s, err), true
	}
	// Only what would be carried out counts.
	if a, ok := h.admit(s, key, address); !ok {
		return a, true
	}
	result, err := do(r.Context(), h.config.Operations, gateway.Caller{Application: key.Name, Source: source})
	if err != nil {
		return answerError(s, err), true
	}
	a = answerTo(Success)
	a.result = result
	return a, true
}

// authenticate finds the key that came with a request: the user name of HTTP
// Basic authentication with an empty password (RFC 7617). A missing and a wrong
// key cannot be told apart by the answer.
func (h *Handler) authenticate(r *http.Request, source string) (apikey.Key, answer, bool) {
	failed := h.config.Limits.FailedKeys
	if failed != nil {
		if blocked, retryAfter := failed.Blocked(source); blocked {
			return apikey.Key{}, answerLimited(LimitFailedKeys, retryAfter), false
		}
	}
	name, password, ok := r.BasicAuth()
	if len(r.Header.Values("Authorization")) > 1 || password != "" {
		ok = false
	}
	key, known := h.config.Keys.Lookup(name)
	if ok && known {
		return key, answer{}, true
	}
	if failed != nil {
		failed.Record(source)
	}
	return apikey.Key{}, answerTo(Unauthenticated), false
}

// limitWait has the body of a request arrive in time or not at all. It must not
// be called for a request that somebody else is to read.
//
// The deadline ends by itself. In HTTP/2 it is that of the stream, and means
// nothing once the body is there. In HTTP/1 it is that of the connection, and
// net/http ends it when it meets the end of the body. If the body is not read, it
// still applies to what net/http discards of it before it answers.
func (h *Handler) limitWait(w http.ResponseWriter, r *http.Request) {
	if asks(r) {
		// A client that was not told to send its body may not send it, and need not
		// wait for what is discarded of it. Whoever reads the body takes this back.
		w.Header().Add("Connection", "close")
	}
	// In HTTP/1 net/http waits for the next request then: to miss a deadline would
	// mean that the client is gone, and cancel this one.
	if r.ContentLength == 0 && r.ProtoMajor == 1 {
		return
	}
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && server.ReadTimeout > 0 && server.ReadTimeout <= h.config.BodyTimeout {
		return
	}
	// A ResponseWriter without deadlines leaves them to whoever made it.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.config.BodyTimeout))
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

// body checks the media type and reads the body of a request.
func (h *Handler) body(w http.ResponseWriter, r *http.Request, s *service) ([]byte, answer, bool) {
	// Whether an optional body is there is known after reading only.
	if !s.bodyOptional && !isJSON(r.Header) {
		return nil, answerTo(UnsupportedMedia), false
	}
	if r.ContentLength > h.config.MaxBodySize {
		return nil, answerTo(TooLarge), false
	}
	var body bytes.Buffer
	// The declared length is a claim: what follows is reserved as it arrives.
	body.Grow(int(min(max(r.ContentLength, 0), bodyReserve)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, h.config.MaxBodySize)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, answerTo(TooLarge), false
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, answerTo(TooSlow), false
		}
		return nil, answerError(s, bodyError("could not be read")), false
	}
	arrived(w, r)
	if s.bodyOptional && body.Len() > 0 && len(r.Header.Values("Content-Type")) > 0 && !isJSON(r.Header) {
		return nil, answerTo(UnsupportedMedia), false
	}
	return body.Bytes(), answer{}, true
}

// isJSON reports whether a body with this header is JSON as it is: in UTF-8 and
// not encoded further.
func isJSON(header http.Header) bool {
	values := header.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	media, parameters, err := mime.ParseMediaType(values[0])
	if err != nil || media != "application/json" {
		return false
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return false
	}
	for _, coding := range header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	return true
}

// admit counts the call of a service that is limited.
func (h *Handler) admit(s *service, key apikey.Key, address netip.Addr) (answer, bool) {
	var limiter Limiter
	var source string
	var limit Limit
	switch s.quota {
	case exchanges:
		limit, limiter, source = LimitExchanges, h.config.Limits.Exchanges, ratelimit.AddressKey(address)
	case proofs:
		// The second calls are counted by themselves, so that an exchange costs one
		// of each; without a first one they cost the gateway as much.
		limit, limiter, source = LimitExchanges, h.config.Limits.Exchanges, "proof "+ratelimit.AddressKey(address)
	case registrations:
		limit, limiter, source = LimitRegistrations, h.config.Limits.Registrations, key.Name
	case calls:
		if key.Class == apikey.FrontEnd {
			limit, limiter, source = LimitCalls, h.config.Limits.Calls, ratelimit.AddressKey(address)
		}
	case unlimited:
	}
	if limiter == nil {
		return answer{}, true
	}
	ok, retryAfter := limiter.Allow(source)
	if ok {
		return answer{}, true
	}
	return answerLimited(limit, retryAfter), false
}

// write sends an answer and reports it.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, s *service, a answer, o Observation) {
	o.Outcome, o.HTTPStatus, o.Status, o.Limit = a.outcome, a.status, statusName(a.codes.StatusCodeEnum), a.limit
	h.config.Observe(r, o)
	v := versionOf(r.URL.Path)
	if s != nil {
		v = s.version
	}
	h.respond(w, v, a)
}

func (h *Handler) respond(w http.ResponseWriter, v version, a answer) {
	body := encode(v, a.codes, a.result, a.description)
	header := w.Header()
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
	w.WriteHeader(a.status)
	// Nobody is left to be told that the client is gone.
	_, _ = w.Write(body)
}

// versionOf tells the version of a path without a service.
func versionOf(path string) version {
	if strings.HasPrefix(path, "/rest/") && !strings.HasPrefix(path, "/rest/v2/") {
		return v1
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
