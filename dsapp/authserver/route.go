package authserver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// errDrained is the cause of a failure if all instances that could get the command are drained.
var errDrained = errors.New("all instances are drained")

// Target says which instances a command is for. The zero value leaves the choice to the
// policy.
type Target struct {
	// Instances are the names of the instances that hold what the command is about. If it
	// is empty, the policy decides.
	Instances []string
	// Search says that any of the instances may hold the pending request that the command
	// is about. It is for retrievals, and for cancellations with a wrapped key, which the
	// gateway cannot read.
	//
	// In a replicated deployment, the next instance is asked as long as instances answer
	// that they do not have the request (or, to a cancellation, that the device may not
	// cancel it), or cannot tell. If all of them answered that they do not have it, the
	// error is the last *Refusal. If some could not tell, it is a *CallError with
	// ErrUndecided, or with ErrNotSent if no instance could be reached. With a shared
	// database, the first answer counts.
	Search bool
}

// At returns the Target for the named instance, or the zero value if instance is empty.
func At(instance string) Target {
	if instance == "" {
		return Target{}
	}
	return Target{Instances: []string{instance}}
}

// Sender carries out commands. *Servers implements it.
type Sender interface {
	Send(ctx context.Context, to Target, c soap.Call) (instance string, err error)
}

// Call carries out a command. It returns the answer and the name of the instance that sent
// it. The error is that of Sender.Send.
func Call[Q, A any](ctx context.Context, s Sender, to Target, c soap.Command[Q, A], request Q) (A, string, error) {
	var answer A
	instance, err := s.Send(ctx, to, c.Call(&request, &answer))
	if err != nil {
		var zero A
		return zero, "", err
	}
	return answer, instance, nil
}

// Replicated reports whether pending requests and registrations exist on only one of several
// instances, so that another one may have what one instance does not.
func (s *Servers) Replicated() bool {
	return s.deployment == DeploymentReplicated && len(s.instances) > 1
}

// candidates returns the instances that may get a command, each once, in the order in which
// they are asked. In a replicated deployment, missing is a name in names for which there is no
// instance. Unless it is named, a drained instance comes last, and gets no command that
// begins something new.
func (s *Servers) candidates(c soap.Call, names []string) (candidates []*instance, missing string) {
	for _, name := range names {
		in := s.instance(name)
		switch {
		case in == nil:
			missing = name
		case !slices.Contains(candidates, in):
			candidates = append(candidates, in)
		}
	}
	if len(names) > 0 && s.deployment == DeploymentReplicated {
		return candidates, missing
	}
	first := s.preferred(c.Row, len(candidates) == 0)
	var drained []*instance
	for i := range s.instances {
		in := s.instances[(first+i)%len(s.instances)]
		switch {
		case slices.Contains(candidates, in):
		case !in.state.drained.Load():
			candidates = append(candidates, in)
		case !c.Begins() || len(names) > 0:
			drained = append(drained, in)
		}
	}
	return append(candidates, drained...), ""
}

// preferred returns the index of the instance that the policy prefers. takesTurn says that the
// command begins there. Commands that begin on an instance of their own take no turn;
// otherwise they could make all others begin on the same instance.
func (s *Servers) preferred(c *soap.Row, takesTurn bool) int {
	if s.policy != PolicyRoundRobin {
		return 0
	}
	turns := &s.stateOf(c).turns
	turn := turns.Load()
	if takesTurn {
		turn = turns.Add(1) - 1
	}
	return int(turn % uint64(len(s.instances)))
}

// failures collects the failures of a command on one instance after the other.
type failures struct {
	search  bool // see Target
	unknown int  // instances that may have carried out the command
	// unable is the last failure of an instance that could not tell whether it has what the
	// command is about.
	unable error
	// decisive is the failure that says most about the command as a whole.
	decisive error
	final    bool // no further instance was allowed to be asked
}

// add adds the next failure and reports whether another instance may be asked.
func (f *failures) add(r attemptResult, err error) (next bool) {
	if r.unknown {
		f.unknown++
	}
	// If an earlier instance may have carried out the command, it does not matter that a
	// later one was not reached.
	if f.decisive == nil || !errors.Is(r.reason, ErrNotSent) {
		f.decisive = err
	}
	switch {
	case r.notHere:
		return true
	case r.mayAskNext && f.unknown <= 1:
		f.unable = err
		return true
	}
	f.final = true
	return false
}

// err returns the error of the command as a whole.
func (f *failures) err(c *soap.Row) error {
	if f.final || !f.search || f.unable == nil || errors.Is(f.decisive, ErrNotSent) {
		return f.decisive
	}
	// At least one instance was reached, and at least one could not tell.
	undecided := &CallError{Operation: c.String(), Reason: ErrUndecided}
	// The failure of one instance must not be mistaken for that of the command, so only
	// its text becomes the cause.
	if failure, ok := errors.AsType[*CallError](f.unable); ok {
		undecided.Instance, undecided.Cause = failure.Instance, errors.New(failure.Cause.Error())
	} else if refusal, ok := errors.AsType[*Refusal](f.unable); ok {
		undecided.Instance, undecided.Cause = refusal.Instance, errors.New(refusal.Error())
	}
	return undecided
}

// Send sends a command to one instance after the other until one succeeds or no other may be
// asked. It stores the values of a success in c.Answer and returns the name of the instance.
// Each instance is asked at most once. The error is a *Refusal or a *CallError.
func (s *Servers) Send(ctx context.Context, to Target, c soap.Call) (instance string, err error) {
	request, err := c.Encode(&s.dialect)
	if err != nil {
		return "", &CallError{Operation: c.String(), Reason: ErrNotSent, Cause: err}
	}
	defer clear(request)

	candidates, missing := s.candidates(c, to.Instances)
	var askNextOn []string
	if to.Search && s.deployment == DeploymentReplicated {
		askNextOn = c.AskNextOn
	}
	failed := failures{search: to.Search}
	notSent := func(instance string, err error) {
		r := (&attempt{err: err}).result(c.Row, askNextOn)
		failed.add(r, r.err(instance, c.Row))
	}
	if missing != "" {
		notSent(missing, errors.New("no such instance"))
	} else if len(candidates) == 0 {
		notSent("", errDrained)
	}
	for i, candidate := range candidates {
		if i > 0 && ctx.Err() != nil {
			notSent(candidate.name, ctx.Err())
			break
		}
		start := time.Now()
		r := candidate.try(ctx, c, groupOf(ctx, c), &s.dialect, request, askNextOn)
		err := r.err(candidate.name, c.Row)
		s.logAttempt(ctx, candidate, c.Row, r, err, len(candidates) > 1, time.Since(start))
		if err == nil {
			if r.answer.Guessed != "" {
				s.logGuess(ctx, candidate, c.Row, r.answer.Guessed)
			}
			return candidate.name, nil
		}
		if !failed.add(r, err) {
			break
		}
	}
	return "", failed.err(c.Row)
}
