package embedded

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxBatch is how many calls share one transaction at most.
	maxBatch = 128
	// maxEvictions is how many simulated records one call removes at most to keep the cap.
	// It is more than a call adds, so that their number falls after the cap was lowered.
	maxEvictions = 4
)

// errClosed is returned for calls after Close.
var errClosed = errors.New("store is closed")

// queue collects the calls that write into batches. Calls that arrive while a transaction is
// synced to disk share the next transaction, because a transaction takes the same time for
// one call as for a hundred. One goroutine runs all batches until close: a new one for each would
// have to grow its stack each time.
type queue struct {
	run func(batch []*call)

	mu      sync.Mutex
	arrived sync.Cond // of mu: a call, or the end
	waiting []*call
	running bool // a batch
	closed  bool
	wg      sync.WaitGroup
}

// start starts the goroutine.
func (q *queue) start(run func(batch []*call)) {
	q.run, q.arrived.L = run, &q.mu
	q.wg.Go(q.drain)
}

// call is a call that writes. If do fails after it changed something, the transaction is
// rolled back.
type call struct {
	do func(*transaction) error
	// reserved says that the call may use reserved disk space.
	reserved bool

	err  error
	done chan struct{}
}

// enqueue adds c to the queue. c.done is closed when its transaction is durable or has
// failed.
func (q *queue) enqueue(c *call) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	q.waiting = append(q.waiting, c)
	if !q.running {
		q.arrived.Signal()
	}
	return nil
}

// drain runs batches until the queue is closed and no call is waiting.
func (q *queue) drain() {
	for batch := q.next(); len(batch) > 0; batch = q.next() {
		q.run(batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// next waits for calls and returns a batch of them. It is empty after the end.
func (q *queue) next() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running = false; len(q.waiting) == 0 && !q.closed; {
		q.arrived.Wait()
	}
	q.running = true
	n := min(len(q.waiting), maxBatch)
	batch := q.waiting[:n:n]
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	return batch
}

// close refuses further calls and waits for the accepted ones.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.arrived.Signal()
	q.mu.Unlock()
	q.wg.Wait()
}

// write runs one batch in one transaction. If the transaction fails, so do all its calls.
func (s *Store) write(batch []*call) {
	err := s.transact(batch)
	if err == nil {
		return
	}
	for _, c := range batch {
		c.err = err
	}
}

// transact runs one batch in one transaction, which it commits if anything changed.
func (s *Store) transact(batch []*call) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.begin(true)
	if err != nil {
		return err
	}
	defer func() {
		// This goroutine belongs to no request that would recover. A panic of bbolt
		// because of a damaged page must not end the process.
		if cause := recover(); cause != nil {
			err = s.endPanicked(cause, tx)
		}
	}()
	t := &transaction{tx: tx, now: s.now(), simulated: s.simulated, maxSimulated: s.maxSimulated, needsPages: s.needsPages(tx), removal: &s.removal}
	full := s.space.maintain(tx.Size(), t.now)
	for _, c := range batch {
		if full != nil && !c.reserved {
			c.err = full
			continue
		}
		before := t.changed
		t.now = s.now()
		if c.err = c.do(t); c.err != nil && t.changed != before {
			return errors.Join(c.err, tx.Rollback())
		}
	}
	if t.changed == 0 {
		return tx.Rollback()
	}
	if err := t.expire(len(batch)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	began := s.now()
	err = tx.Commit()
	s.space.committed(err, began)
	if err != nil {
		return err
	}
	s.simulated = t.simulated
	s.registrations.Add(int64(t.registrations))
	return nil
}

// needsPages reports whether the pages of what has ended are needed: there are few free ones, or
// the last transaction used new ones all the same, because it found too few in a row. It is called
// once for each write transaction.
func (s *Store) needsPages(tx *bolt.Tx) bool {
	grown := s.used > 0 && tx.Size() > s.used
	s.used = tx.Size()
	return grown || s.db.Stats().FreePageN < enoughPages
}

// update calls do in a write transaction and returns its result when the transaction is
// durable. If ctx ends before, it is unknown whether do is called.
func update[T any](ctx context.Context, s *Store, do func(*transaction) (T, error)) (T, error) {
	return enqueue(ctx, s, false, do)
}

// enqueue is update with the choice whether do may use reserved disk space.
func enqueue[T any](ctx context.Context, s *Store, reserved bool, do func(*transaction) (T, error)) (T, error) {
	var result, none T
	c := &call{reserved: reserved, done: make(chan struct{})}
	c.do = func(t *transaction) (err error) {
		if err := ctx.Err(); err != nil {
			return err
		}
		result, err = do(t)
		return err
	}
	if err := ctx.Err(); err != nil {
		return none, unavailable(err)
	}
	if err := s.queue.enqueue(c); err != nil {
		return none, unavailable(err)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return none, unavailable(ctx.Err())
	}
	if c.err != nil {
		return none, unavailable(c.err)
	}
	return result, nil
}

// view calls do in a read transaction and returns its result.
func view[T any](ctx context.Context, s *Store, do func(*bolt.Tx) (T, error)) (T, error) {
	var result, none T
	if err := ctx.Err(); err != nil {
		return none, unavailable(err)
	}
	err := s.read(func(tx *bolt.Tx) (err error) {
		result, err = do(tx)
		return err
	})
	if err != nil {
		return none, unavailable(err)
	}
	return result, nil
}
