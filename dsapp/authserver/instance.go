package authserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
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

// try carries out a command of a group, if breaker and queue let it through, and
// judges what came of that.
func (in *instance) try(caller context.Context, c soap.Call, g group, d *soap.Dialect, request []byte, elsewhere []string) (v verdict) {
	notSent := func(err error) verdict { return judge(c.Row, elsewhere, &sighting{err: err}) }
	if left := in.state.breaker.RetryAfter(); left > 0 {
		return notSent(&breaker.OpenError{RetryAfter: left})
	}
	ctx, cancel := context.WithTimeout(caller, in.timeout)
	defer cancel()
	if err := in.state.load.acquire(ctx, claim{g, in.limits}); err != nil {
		return notSent(err)
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
		return notSent(err)
	}
	defer func() { in.settle(caller, call, c.Row, &v) }()
	if idle, ok := in.transport.(interface{ CloseIdleConnections() }); ok && call.Trial() {
		// Connections from before the failure may be broken, each of them.
		idle.CloseIdleConnections()
	}
	hasty := time.Until(deadline) < in.timeout/2
	answers := in.state.answers.Load()
	seen := in.state.reach.began()
	saw := in.exchange(ctx, c, d, request)
	saw.gone, saw.ended, saw.hasty = caller.Err() != nil, ctx.Err(), hasty
	saw.answering = in.state.answers.Load() != answers
	v = judge(c.Row, elsewhere, &saw)
	switch {
	case errors.Is(v.reason, ErrNotSent) && v.outcome == breaker.Failed:
		in.state.reach.ended(seen, false, func() { in.logLost(caller, c.String(), v.cause) })
	case v.reason == nil || errors.Is(v.reason, ErrBadAnswer):
		in.state.reach.ended(seen, true, func() { in.logReached(caller, c.String()) })
	}
	if v.outcome == breaker.Worked {
		in.state.answers.Add(1)
	}
	return v
}

// exchange sends a command and reads the answer. When it returns, nothing reads
// request any more.
func (in *instance) exchange(ctx context.Context, c soap.Call, d *soap.Dialect, request []byte) sighting {
	p := &payload{data: request}
	defer p.abandon()
	// Redirects are not followed: they are a matter of http.Client.
	response, err := in.transport.RoundTrip(in.request(ctx, d.Version, p))
	if err != nil {
		return sighting{asked: true, sent: p.abandon(), connecting: p.connecting(), err: err}
	}
	defer response.Body.Close()
	answer, err := read(response, c, d)
	if failed, ok := errors.AsType[*soap.ReadError](err); ok {
		return sighting{asked: true, sent: true, err: failed.Err}
	}
	return sighting{asked: true, sent: true, reached: true, answer: answer, err: err}
}

// read reads the answer to a command.
func read(response *http.Response, c soap.Call, d *soap.Dialect) (*soap.Answer, error) {
	if err := checkMediaType(response); err != nil {
		return nil, err
	}
	answer, err := c.Decode(response.Body, d)
	if answer != nil && response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d without a Fault", response.StatusCode)
	}
	return answer, err
}

// request makes the HTTP request for one attempt.
func (in *instance) request(ctx context.Context, v soap.Version, p *payload) *http.Request {
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           in.url,
		Host:          in.url.Host,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {v.ContentType}},
		Body:          p.open(),
		GetBody:       p.reopen,
		ContentLength: int64(len(p.data)),
	}
	if v.Action {
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
	case parameters["charset"] != "" && !form.IsUTF8(parameters["charset"]):
		return errors.New("answer in another character set than UTF-8")
	}
	return nil
}
