package authserver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// Target says where a command belongs. The zero Target leaves that to the policy.
type Target struct {
	// Instances are the names of those that hold what the command is about; none
	// if that is unknown or nowhere, so that the policy decides.
	Instances []string
	// Search says that each of the instances can be the one that holds it: that of a
	// pending request which is retrieved, or cancelled with a wrapped key, which does
	// not tell. In a replicated deployment the next one is asked as long as the
	// answers are that it is not there (for a cancel also: not this device's to
	// cancel), or that the instance cannot tell. It is not there only if all of them
	// said so; otherwise, unless none was reached, the error is a *CallError with
	// ErrUndecided. With a shared database the first answer counts.
	Search bool
}

// At is the named instance or, without a name, one chosen by policy.
func At(instance string) Target {
	if instance == "" {
		return Target{}
	}
	return Target{Instances: []string{instance}}
}

// Sender carries out commands. *Servers is one.
type Sender interface {
	Send(ctx context.Context, to Target, c soap.Call) (instance string, err error)
}

// Call carries out a command. It gives the answer and the name of the instance that
// did it. The error is that of Send.
func Call[Q, A any](ctx context.Context, s Sender, to Target, c soap.Command[Q, A], request Q) (A, string, error) {
	var answer A
	instance, err := s.Send(ctx, to, c.Call(&request, &answer))
	if err != nil {
		var none A
		return none, "", err
	}
	return answer, instance, nil
}

// Replicated reports whether a pending request or registration lives on one of
// several instances, so that one that does not find it says nothing about the
// others.
func (s *Servers) Replicated() bool {
	return s.deployment == DeploymentReplicated && len(s.instances) > 1
}

// candidates gives the instances that may get a command, each once, in the order
// in which they are asked. unknown is the name of an instance that alone may get
// it, but does not exist.
func (s *Servers) candidates(c *soap.Row, names []string) (candidates []*instance, unknown string) {
	for _, name := range names {
		in := s.instance(name)
		switch {
		case in == nil:
			unknown = name
		case !slices.Contains(candidates, in):
			candidates = append(candidates, in)
		}
	}
	if len(names) > 0 && s.deployment == DeploymentReplicated {
		return candidates, unknown
	}
	first := s.first(c, len(candidates) == 0)
	for i := range s.instances {
		in := s.instances[(first+i)%len(s.instances)]
		if !slices.Contains(candidates, in) {
			candidates = append(candidates, in)
		}
	}
	return candidates, ""
}

// first is the index of the instance that the policy prefers. Only a command that
// really begins there is a turn: otherwise those that follow others to their
// instances could make all the rest meet on one.
func (s *Servers) first(c *soap.Row, begins bool) int {
	if s.policy != PolicyRoundRobin {
		return 0
	}
	turns := &s.usage(c).turns
	turn := turns.Load()
	if begins {
		turn = turns.Add(1) - 1
	}
	return int(turn % uint64(len(s.instances)))
}

// attempts sums up how a command failed on one instance after the other.
type attempts struct {
	search  bool
	unknown int // instances that may have carried it out
	// unable is the last failure of an instance that could not answer.
	unable error
	// failure is the one that tells most.
	failure error
	final   bool
}

// add takes the next failure and reports whether another instance may be asked.
func (a *attempts) add(v verdict, err error) (next bool) {
	if v.unknown {
		a.unknown++
	}
	// A later instance that was not even reached does not undo what an earlier
	// one may have done.
	if a.failure == nil || !errors.Is(v.reason, ErrNotSent) {
		a.failure = err
	}
	switch {
	case v.elsewhere:
		return true
	case v.next && a.unknown <= 1:
		a.unable = err
		return true
	}
	a.final = true
	return false
}

// err is the failure of the command as a whole.
func (a *attempts) err(c *soap.Row) error {
	if a.final || !a.search || a.unable == nil || errors.Is(a.failure, ErrNotSent) {
		return a.failure
	}
	// Not every instance denies to have it, and not every one was unreachable.
	undecided := &CallError{Operation: c.String(), Reason: ErrUndecided}
	// What kind of failure the cause is says nothing about the whole command:
	// only its text is kept.
	if failure, ok := errors.AsType[*CallError](a.unable); ok {
		undecided.Instance, undecided.Cause = failure.Instance, errors.New(failure.Cause.Error())
	} else if refusal, ok := errors.AsType[*Refusal](a.unable); ok {
		undecided.Instance, undecided.Cause = refusal.Instance, errors.New(refusal.Error())
	}
	return undecided
}

// Send carries out a command on the first instance that takes it, fills in its answer
// and gives the name of the instance. Each instance is asked at most once; the answer
// of the last one counts. The error is a *Refusal or a *CallError.
func (s *Servers) Send(ctx context.Context, to Target, c soap.Call) (instance string, err error) {
	request, err := c.Encode(&s.dialect)
	if err != nil {
		return "", &CallError{Operation: c.String(), Reason: ErrNotSent, Cause: err}
	}
	defer clear(request)

	candidates, unknown := s.candidates(c.Row, to.Instances)
	var elsewhere []string // statuses after which the next instance is asked
	if to.Search && s.deployment == DeploymentReplicated {
		elsewhere = c.AskNextOn
	}
	tried := attempts{search: to.Search}
	if unknown != "" {
		v := judge(c.Row, elsewhere, &sighting{err: errors.New("no such instance")})
		tried.add(v, v.failure(unknown, c.Row))
	}
	for i, candidate := range candidates {
		if i > 0 && ctx.Err() != nil {
			v := judge(c.Row, elsewhere, &sighting{err: ctx.Err()})
			tried.add(v, v.failure(candidate.name, c.Row))
			break
		}
		start := time.Now()
		v := candidate.try(ctx, c, groupOf(ctx, c), &s.dialect, request, elsewhere)
		err := v.failure(candidate.name, c.Row)
		// That one of several does not have it is no news.
		s.log(ctx, candidate, c.Row, v, err, len(candidates) > 1, time.Since(start))
		if err == nil {
			if v.answer.Guessed != "" {
				s.logGuess(ctx, candidate, c.Row, v.answer.Guessed)
			}
			return candidate.name, nil
		}
		if !tried.add(v, err) {
			break
		}
	}
	return "", tried.err(c.Row)
}
