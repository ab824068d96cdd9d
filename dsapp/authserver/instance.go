package authserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// instance is an Instance in use.
type instance struct {
	name      string
	origin    string      // scheme and host of Instance.URL
	header    http.Header // of every request
	transport Transport
	timeout   time.Duration
	probe     func(context.Context) error
	state     *State
	breaker   breaker.Settings
	limits    limits
	// breakerChanged is Config.BreakerChanged.
	breakerChanged func(context.Context, BreakerChange)
	logger         *slog.Logger
}

// newInstance returns an instance with the settings that c has for all of them.
func newInstance(i Instance, c *Config, v soap.Version) *instance {
	if i.State == nil {
		i.State = new(State)
	}
	header := http.Header{"Content-Type": {v.ContentType}}
	if v.Action {
		// SOAP clients usually write the header in this case, which is not Go's
		// canonical form.
		header["SOAPAction"] = []string{`""`}
	}
	return &instance{
		name:      i.Name,
		origin:    i.URL.Scheme + "://" + i.URL.Host,
		header:    header,
		transport: i.Transport,
		timeout:   c.Timeout,
		probe:     i.Probe,
		state:     i.State,
		breaker:   c.Breaker,
		limits: limits{
			connections:  i.MaxConnections,
			reserved:     i.ReservedConnections,
			awaitingUser: cmp.Or(i.MaxWaiting, i.MaxConnections),
			queue:        i.MaxQueue,
		},
		breakerChanged: c.BreakerChanged,
		logger:         c.Logger,
	}
}

// try sends a command of a group if the breaker and the limiter let it through, and returns
// what came of it.
func (in *instance) try(caller context.Context, c soap.Call, g group, d *soap.Dialect, request []byte, askNextOn []string) (r attemptResult) {
	notSent := func(err error) attemptResult { return (&attempt{err: err}).result(c.Row, askNextOn) }
	if left := in.state.breaker.RetryAfter(); left > 0 {
		return notSent(&breaker.OpenError{RetryAfter: left})
	}
	deadline := time.Now().Add(in.timeout)
	if earlier, ok := caller.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	if err := in.state.limiter.acquire(caller, deadline, ticket{g, in.limits}); err != nil {
		return notSent(err)
	}
	defer in.state.limiter.release(g)
	ctx := caller
	if g == groupAwaitsUser {
		// The server goes on waiting for the user after the client has left, so the
		// connection stays in use, too. Otherwise a client that keeps breaking off calls
		// could make more of them wait at the server than the limit allows.
		ctx = context.WithoutCancel(caller)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	// The breaker may have opened while the command was in the queue.
	call, err := in.state.breaker.Begin(in.breaker)
	if err != nil {
		return notSent(err)
	}
	defer func() { in.endBreakerCall(caller, call, c.Row, &r) }()
	if call.Trial() {
		// Any connection from before the failure may be broken.
		in.transport.CloseIdleConnections()
	}
	mostlyQueued := time.Until(deadline) < in.timeout/2
	answers := in.state.answers.Load()
	seen := in.state.reachability.begin()
	a := in.roundTrip(ctx, c, d, request)
	a.callerGone, a.ctxErr, a.mostlyQueued = caller.Err() != nil, ctx.Err(), mostlyQueued
	a.othersAnswered = in.state.answers.Load() != answers
	r = a.result(c.Row, askNextOn)
	switch {
	case errors.Is(r.reason, ErrNotSent) && r.outcome == breaker.Failed:
		in.state.reachability.record(seen, false, func() { in.logUnreachable(caller, c.String(), r.cause) })
	case r.reason == nil || errors.Is(r.reason, ErrBadAnswer):
		in.state.reachability.record(seen, true, func() { in.logReachable(caller, c.String()) })
	}
	if r.outcome == breaker.Worked {
		in.state.answers.Add(1)
	}
	return r
}

// roundTrip sends a command and reads the answer.
func (in *instance) roundTrip(ctx context.Context, c soap.Call, d *soap.Dialect, request []byte) attempt {
	response, err := in.transport.Post(ctx, in.header, request)
	if unsent, ok := errors.AsType[*httpclient.NotSentError](err); ok {
		return attempt{admitted: true, connecting: unsent.Connecting, err: unsent.Err}
	}
	if err != nil {
		return attempt{admitted: true, sent: true, err: err}
	}
	defer response.Body.Close()
	answer, err := readAnswer(response, c, d)
	if failed, ok := errors.AsType[*soap.ReadError](err); ok {
		return attempt{admitted: true, sent: true, err: failed.Err}
	}
	return attempt{admitted: true, sent: true, answerRead: true, answer: answer, err: err}
}

// readAnswer reads the answer to a command.
func readAnswer(response *http.Response, c soap.Call, d *soap.Dialect) (*soap.Answer, error) {
	if err := checkMediaType(response); err != nil {
		return nil, err
	}
	answer, err := c.Decode(response.Body, d)
	if answer != nil && response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d without a Fault", response.StatusCode)
	}
	return answer, err
}

// checkMediaType checks that the header of an answer announces XML in UTF-8.
func checkMediaType(r *http.Response) error {
	value := r.Header.Get("Content-Type")
	// Nearly every server sends one of these. To parse them took a hundredth of the
	// processor time of a request.
	if value == "text/xml; charset=utf-8" || value == "text/xml;charset=UTF-8" {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(value)
	for errors.Is(err, mime.ErrInvalidMediaParameter) {
		// Ignore a malformed parameter and what follows it, but not what precedes it.
		value = value[:strings.LastIndexByte(value, ';')]
		media, parameters, err = mime.ParseMediaType(value)
	}
	switch {
	case err != nil:
		return fmt.Errorf("HTTP status %d without a valid media type", r.StatusCode)
	case media != "text/xml" && media != "application/xml" && !strings.HasSuffix(media, "+xml"):
		return fmt.Errorf("HTTP status %d with a media type other than XML", r.StatusCode)
	case parameters["charset"] != "" && !form.IsUTF8(parameters["charset"]):
		return errors.New("answer in a character set other than UTF-8")
	}
	return nil
}
