package redis

import (
	"cmp"
	"context"
	"sync"
	"time"
)

const (
	// maxGathered is how many changes are gathered at most. More would keep the server from other
	// calls for too long.
	maxGathered = 16
	// gatherTimeout bounds the time that gathered changes take.
	gatherTimeout = 3 * time.Second
)

// change is a change of the store that no answer waits for: of a call that has succeeded, whatever
// becomes of it.
type change struct {
	// ctx is that of the call. It does not end.
	ctx context.Context
	// name is the name of the method, for Options.Observe.
	name  string
	calls []call
}

// gathered are the changes that will be made together: a round trip costs much more than what is sent
// with it.
type gathered struct {
	mu      sync.Mutex
	changes []change
	timer   *time.Timer
	// making is locked for reading while changes are made.
	making sync.RWMutex
}

// makeLater makes a change that no answer waits for: with Options.Gather a little later, together with
// others. It then returns nil, and Options.Lost is called if the change fails.
func (s *Store) makeLater(ctx context.Context, name string, calls ...call) (err error) {
	if s.gather == 0 || ctx.Err() != nil {
		defer s.observe.Begin(ctx, name).End(nil, &err)
		_, err = s.run(ctx, calls...)
		return err
	}
	g := &s.gathered
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes = append(g.changes, change{context.WithoutCancel(ctx), name, calls})
	switch len(g.changes) {
	case 1:
		g.timer = time.AfterFunc(s.gather, s.makeGathered)
	case maxGathered:
		g.timer.Reset(0)
	}
	return nil
}

// Flush makes the changes that were gathered, and waits for all that are being made.
func (s *Store) Flush() {
	s.makeGathered()
	s.gathered.making.Lock()
	defer s.gathered.making.Unlock()
}

// makeGathered makes the changes that were gathered, in one round trip.
func (s *Store) makeGathered() {
	g := &s.gathered
	g.making.RLock()
	defer g.making.RUnlock()
	g.mu.Lock()
	changes := g.changes
	g.changes = nil
	g.mu.Unlock()
	if len(changes) == 0 {
		return
	}
	calls := make([]call, 0, len(changes)*mostCommands)
	ends := make([]func(done *bool, err *error), len(changes))
	for i, c := range changes {
		calls = append(calls, c.calls...)
		ends[i] = s.observe.Begin(c.ctx, c.name).End
	}
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
	defer cancel()
	sent, failure := s.send(ctx, calls...)
	for i, c := range changes {
		var err error
		for _, d := range sent[:len(c.calls)] {
			if d.answer == nil {
				// The call had no server.
				err = cmp.Or(err, unavailable(failure))
				continue
			}
			_, failed := scriptReply(d.answer)
			err = cmp.Or(err, failed)
		}
		sent = sent[len(c.calls):]
		ends[i](nil, &err)
		if err != nil {
			s.lost(c.ctx, c.name, err)
		}
	}
}
