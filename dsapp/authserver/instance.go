package authserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// instance is an Instance at work.
type instance struct {
	name      string
	url       *url.URL
	transport http.RoundTripper
	timeout   time.Duration
	probe     func(context.Context) error
	state     *State
	breaker   breaker.Settings
	limits    limits
	logger    *slog.Logger
}

func newInstance(i Instance, timeout time.Duration, b breaker.Settings, logger *slog.Logger) *instance {
	address := *i.URL
	if i.State == nil {
		i.State = new(State)
	}
	return &instance{
		name:      i.Name,
		url:       &address,
		transport: i.Transport,
		timeout:   timeout,
		probe:     i.Probe,
		state:     i.State,
		breaker:   b,
		limits: limits{
			connections: i.MaxConnections,
			reserved:    i.ReservedConnections,
			waiting:     cmp.Or(i.MaxWaiting, i.MaxConnections),
			queue:       i.MaxQueue,
		},
		logger: logger,
	}
}

func (in *instance) failure(c *command, reason, cause error) error {
	return &CallError{Instance: in.name, Operation: c.String(), Reason: reason, Cause: cause}
}

// exchange sends a command of a group and reads the answer. Its errors are
// *CallError. When it returns, nothing reads request any more.
func (in *instance) exchange(caller context.Context, c *command, g group, v soapVersion, request []byte) (got *answer, err error) {
	if left := in.state.breaker.RetryAfter(); left > 0 {
		return nil, in.failure(c, ErrNotSent, &breaker.OpenError{RetryAfter: left})
	}
	ctx, cancel := context.WithTimeout(caller, in.timeout)
	defer cancel()
	if err := in.state.load.acquire(ctx, claim{g, in.limits}); err != nil {
		return nil, in.failure(c, ErrNotSent, err)
	}
	defer in.state.load.release(g)
	deadline, _ := ctx.Deadline()
	if g == groupPerson {
		// The server goes on waiting for the person when the client has gone. So does
		// this: whoever breaks calls off could have more of them wait at the server than
		// there are places.
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
	}
	// Only now: what became known while the command waited counts for it, too.
	call, err := in.state.breaker.Begin(in.breaker)
	if err != nil {
		return nil, in.failure(c, ErrNotSent, err)
	}
	if idle, ok := in.transport.(interface{ CloseIdleConnections() }); ok && call.Trial() {
		// Connections from before the failure may be broken, each of them.
		idle.CloseIdleConnections()
	}
	outcome := breaker.Unjudged
	defer func() { in.judge(caller, call, outcome, got, err) }()
	hasty := time.Until(deadline) < in.timeout/2 // most of the time went by in the queue
	answers := in.state.answers.Load()
	// unanswered tells what it says about the instance that no answer came.
	unanswered := func(reason error) breaker.Outcome {
		late := errors.Is(reason, ErrTimeout)
		switch {
		case caller.Err() != nil, late && hasty:
			return breaker.Unjudged
		case late && c.waits && in.state.answers.Load() != answers:
			// The server works: it waits for the person.
			return breaker.Unjudged
		}
		return breaker.Failed
	}

	seen := in.state.reach.began()
	p := &payload{data: request}
	defer p.abandon()
	// Redirects are not followed: they are a matter of http.Client.
	response, err := in.transport.RoundTrip(in.request(ctx, v, p))
	if err != nil {
		if !p.abandon() {
			// Time that ran out only says something about the connection if it was
			// what the command waited for: it may have been spent in the queue.
			if caller.Err() == nil && (ctx.Err() == nil || p.connecting() && !hasty) {
				outcome = breaker.Failed
				in.state.reach.ended(seen, false, func() { in.logLost(caller, c.String(), err) })
			}
			return nil, in.failure(c, ErrNotSent, err)
		}
		reason, cause := lost(ctx, err)
		outcome = unanswered(reason)
		return nil, in.failure(c, reason, cause)
	}
	defer response.Body.Close()
	got, err = read(response, c.operation)
	fault, faulted := errors.AsType[*Fault](err)
	failed, unread := errors.AsType[*readError](err)
	if unread {
		err = failed.err
	}
	if unread || err != nil && ctx.Err() != nil && !faulted {
		// Also without an error of reading: the server ends its answer when it sees
		// the connection closing, and that can arrive before it is closed.
		reason, cause := lost(ctx, err)
		outcome = unanswered(reason)
		return nil, in.failure(c, reason, cause)
	}
	in.state.reach.ended(seen, true, func() { in.logReached(caller, c.String()) })
	if err == nil && !got.codes.backendFault() || faulted && fault.Sender {
		outcome = breaker.Worked
		in.state.answers.Add(1)
	} else {
		outcome = breaker.Failed
	}
	if err != nil {
		return nil, in.failure(c, ErrBadAnswer, err)
	}
	return got, nil
}

// read reads the answer to an operation.
func read(response *http.Response, operation string) (*answer, error) {
	if err := checkMediaType(response); err != nil {
		return nil, err
	}
	got, err := decode(response.Body, operation)
	if err == nil && response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d without a Fault", response.StatusCode)
	}
	return got, err
}

// request makes the HTTP request for one attempt.
func (in *instance) request(ctx context.Context, v soapVersion, p *payload) *http.Request {
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           in.url,
		Host:          in.url.Host,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {v.contentType}},
		Body:          p.open(),
		GetBody:       p.reopen,
		ContentLength: int64(len(p.data)),
	}
	if v.action {
		// Not in Go's canonical form: the usual case on the wire is this one.
		r.Header["SOAPAction"] = []string{`""`}
	}
	return r.WithContext(httptrace.WithClientTrace(ctx, p.trace()))
}

// checkMediaType makes sure that the answer says to be XML in UTF-8.
func checkMediaType(r *http.Response) error {
	value := r.Header.Get("Content-Type")
	media, parameters, err := mime.ParseMediaType(value)
	for errors.Is(err, mime.ErrInvalidMediaParameter) {
		// A parameter that is no good says nothing about those before it.
		value = value[:strings.LastIndexByte(value, ';')]
		media, parameters, err = mime.ParseMediaType(value)
	}
	switch {
	case err != nil:
		return fmt.Errorf("HTTP status %d without a valid media type", r.StatusCode)
	case media != "text/xml" && media != "application/xml" && !strings.HasSuffix(media, "+xml"):
		return fmt.Errorf("HTTP status %d with a media type other than XML", r.StatusCode)
	case parameters["charset"] != "" && !isUTF8(parameters["charset"]):
		return errors.New("answer in another character set than UTF-8")
	}
	return nil
}

// isUTF8 reports whether a character set is UTF-8, under whatever name, or a part of it.
func isUTF8(charset string) bool {
	return slices.Contains([]string{"utf-8", "utf8", "us-ascii", "ascii"}, strings.ToLower(charset))
}

// lost says why an answer did not arrive. What a transport reports about a
// malformed answer quotes it; such an error is replaced.
func lost(ctx context.Context, err error) (reason, cause error) {
	switch ended := ctx.Err(); ended {
	case nil:
	case context.DeadlineExceeded:
		return ErrTimeout, ended
	default:
		return ErrNoAnswer, ended
	}
	if timeout, ok := errors.AsType[net.Error](err); ok {
		if timeout.Timeout() {
			return ErrTimeout, err
		}
		return ErrNoAnswer, err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrNoAnswer, io.ErrUnexpectedEOF
	}
	return ErrNoAnswer, fmt.Errorf("connection or HTTP failure (%T)", err)
}
