package redis

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxGathered is how many changes are made in one round trip at most. More would keep the
	// server from other calls for too long.
	maxGathered = 16
	// maxBatches is how many of these round trips are under way at most. They must not take all
	// connections of a slow server.
	maxBatches = 4
	// gatherTimeout bounds one of them.
	gatherTimeout = 3 * time.Second
)

// change is a change of the store that no answer waits for: the end of a request.
type change struct {
	// ctx is that of the call. It is never cancelled.
	ctx context.Context
	// name is the name of the method, for Options.Observe and Options.Lost.
	name  string
	calls []call
	// fallback is what to do if one of the calls fails, nil for nothing.
	fallback []call
}

// gathered are the changes that will be made together: a round trip costs much more than what is sent
// with it.
type gathered struct {
	mu      sync.Mutex
	changes []change
	timer   *time.Timer
	// slots are for the round trips that are under way.
	slots *semaphore.Weighted
}

// add adds a change that is to be made after the delay, by due, and reports whether there was room
// for it.
func (g *gathered) add(c change, delay time.Duration, due func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.changes) == maxGathered {
		return false
	}
	g.changes = append(g.changes, c)
	switch len(g.changes) {
	case 1:
		g.timer = time.AfterFunc(delay, due)
	case maxGathered:
		// If the timer has fired, the changes are about to be taken.
		if g.timer.Stop() {
			go due()
		}
	}
	return true
}

// take removes all changes and returns them.
func (g *gathered) take() []change {
	g.mu.Lock()
	defer g.mu.Unlock()
	changes := g.changes
	g.changes = nil
	return changes
}

// makeLater makes a change that no answer waits for: with Options.Gather a little later, together with
// others, unless these are too many or ctx has ended. It then returns nil, and Options.Lost is called if
// the change fails.
func (s *Store) makeLater(ctx context.Context, name string, fallback []call, calls ...call) (err error) {
	c := change{context.WithoutCancel(ctx), name, calls, fallback}
	if s.gather > 0 && ctx.Err() == nil && s.gathered.add(c, s.gather, func() { _ = s.makeGathered() }) {
		return nil
	}
	defer s.observe.Begin(ctx, name).End(nil, &err)
	_, err = s.run(ctx, calls...)
	return err
}

// Flush makes the changes that are delayed, and waits for all that are being made. It returns the
// errors of its own.
func (s *Store) Flush() error {
	err := s.makeGathered()
	// It cannot fail with this context.
	_ = s.gathered.slots.Acquire(context.Background(), maxBatches)
	s.gathered.slots.Release(maxBatches)
	return err
}

// makeGathered makes the changes that are delayed, in one round trip, and returns their errors.
func (s *Store) makeGathered() error {
	_ = s.gathered.slots.Acquire(context.Background(), 1)
	defer s.gathered.slots.Release(1)
	changes := s.gathered.take()
	if len(changes) == 0 {
		return nil
	}
	calls := make([]call, 0, len(changes)*mostCommands)
	ends := make([]func(done *bool, err *error), len(changes))
	for i, c := range changes {
		calls = append(calls, c.calls...)
		ends[i] = s.observe.Begin(c.ctx, c.name).End
	}
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
	defer cancel()
	sent, _ := s.send(ctx, calls...)
	var failures []error
	var fallback []call
	for i, c := range changes {
		var err error
		for _, d := range sent[:len(c.calls)] {
			err = cmp.Or(err, d.scriptError())
		}
		sent = sent[len(c.calls):]
		ends[i](nil, &err)
		if err != nil {
			s.lost(c.ctx, c.name, err)
			failures, fallback = append(failures, err), append(fallback, c.fallback...)
		}
	}
	if len(failures) > 0 {
		s.reservations.forgetWrites()
	}
	if len(fallback) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
		defer cancel()
		_, err := s.run(ctx, fallback...)
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// scriptError returns the error of a call that was sent, or could not be sent.
func (d *delivery) scriptError() error {
	if d.err != nil {
		return unavailable(d.err)
	}
	_, err := scriptReply(d.answer)
	return err
}
