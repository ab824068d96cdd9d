package authserver

import (
	"context"
	"errors"
	"slices"
)

// target says where a command belongs.
type target struct {
	// instances are the names of those that hold what the command is about; none
	// if that is unknown or nowhere, so that the policy decides.
	instances []string
	// search says that each of the instances can be the one that holds it.
	search bool
}

// Replicated reports whether a pending request or registration lives on one of
// several instances, so that one that does not find it says nothing about the
// others.
func (s *Servers) Replicated() bool {
	return s.deployment == DeploymentReplicated && len(s.instances) > 1
}

// at is the named instance or, without a name, one chosen by policy.
func at(instance string) target {
	if instance == "" {
		return target{}
	}
	return target{instances: []string{instance}}
}

// candidates gives the instances that may get a command, each once, in the order
// in which they are asked. unknown is the name of an instance that alone may get
// it, but does not exist.
func (s *Servers) candidates(id commandID, names []string) (candidates []*instance, unknown string) {
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
	first := s.first(id, len(candidates) == 0)
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
func (s *Servers) first(id commandID, begins bool) int {
	if s.policy != PolicyRoundRobin {
		return 0
	}
	turns := &s.turns[id]
	turn := turns.Load()
	if begins {
		turn = turns.Add(1) - 1
	}
	return int(turn % uint64(len(s.instances)))
}

// attempts sums up how a command failed on one instance after the other.
type attempts struct {
	command *command
	// elsewhere are the statuses after which the next instance is asked.
	elsewhere []string
	search    bool
	unknown   int // instances that may have carried it out
	// unable is the last failure of an instance that could not answer.
	unable error
	// failure is the one that tells most.
	failure error
	final   bool
}

// add takes the next failure and reports whether another instance may be asked.
func (a *attempts) add(err error) (next bool) {
	if outcomeUnknown(err) {
		a.unknown++
	}
	// A later instance that was not even reached does not undo what an earlier
	// one may have done.
	if a.failure == nil || !errors.Is(err, ErrNotSent) {
		a.failure = err
	}
	refusal, refused := errors.AsType[*Refusal](err)
	switch {
	case refused && slices.Contains(a.elsewhere, refusal.Codes.StatusCodeEnum):
		return true
	case a.command.retry.permits(err) && a.unknown <= 1:
		a.unable = err
		return true
	}
	a.final = true
	return false
}

// err is the failure of the command as a whole.
func (a *attempts) err() error {
	if a.final || !a.search || a.unable == nil || errors.Is(a.failure, ErrNotSent) {
		return a.failure
	}
	// Not every instance denies to have it, and not every one was unreachable.
	undecided := &CallError{Operation: a.command.String(), Reason: ErrUndecided}
	// What kind of failure the cause is says nothing about the whole command:
	// only its text is kept.
	if failure, ok := errors.AsType[*CallError](a.unable); ok {
		undecided.Instance, undecided.Cause = failure.Instance, errors.New(failure.Cause.Error())
	} else if refusal, ok := errors.AsType[*Refusal](a.unable); ok {
		undecided.Instance, undecided.Cause = refusal.Instance, errors.New(refusal.Error())
	}
	return undecided
}

// call carries out a command on the first instance that takes it. It gives the
// outputs and the name of the instance.
func (s *Servers) call(ctx context.Context, to target, id commandID, in values) (values, string, error) {
	c := &commands[id]
	in[c.componentField()] = s.components.of(c.component)
	request, err := c.encode(s.version, in, &s.attributes)
	if err != nil {
		return nil, "", &CallError{Operation: c.String(), Reason: ErrNotSent, Cause: err}
	}
	defer clear(request)

	candidates, unknown := s.candidates(id, to.instances)
	tried := attempts{command: c, search: to.search}
	if to.search && s.deployment == DeploymentReplicated {
		tried.elsewhere = c.elsewhere
	}
	if unknown != "" {
		tried.add(&CallError{Instance: unknown, Operation: c.String(), Reason: ErrNotSent, Cause: errors.New("no such instance")})
	}
	// That one of several does not have it is no news.
	var expected []string
	if len(candidates) > 1 {
		expected = tried.elsewhere
	}
	for i, candidate := range candidates {
		if i > 0 && ctx.Err() != nil {
			tried.add(candidate.failure(c, ErrNotSent, ctx.Err()))
			break
		}
		out, err := s.try(ctx, candidate, id, request, in, expected)
		if err == nil {
			return out, candidate.name, nil
		}
		if !tried.add(err) {
			break
		}
	}
	return nil, "", tried.err()
}
