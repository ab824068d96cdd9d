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
	// evictions is how many simulated records one call removes at most: more
	// than it adds, so that a lowered cap is reached in time.
	evictions = 4
	// expirations is how many expired entries, and how many claims, a transaction
	// removes on the way.
	expirations = 16
)

// errClosed is returned by calls after Close.
var errClosed = errors.New("store is closed")

// queue runs the calls that write. Calls that wait while a transaction is synced
// to disk share the next one: a transaction costs the same for one call as for a
// hundred. It needs no goroutine while nothing is written.
type queue struct {
	run func(batch []*call)

	mu      sync.Mutex
	waiting []*call
	running bool
	closed  bool
	wg      sync.WaitGroup
}

// call is one change of the file. If do fails, it has changed nothing unless
// the transaction itself is unusable.
type call struct {
	do func(*transaction) error
	// reserved says that room was reserved for what it writes.
	reserved bool

	err  error
	done chan struct{}
}

// enqueue hands c over; c.done is closed when its transaction is durable or lost.
func (q *queue) enqueue(c *call) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	q.waiting = append(q.waiting, c)
	if !q.running {
		q.running = true
		q.wg.Go(q.drain)
	}
	return nil
}

// drain runs what is waiting until nothing is.
func (q *queue) drain() {
	for {
		q.mu.Lock()
		n := min(len(q.waiting), maxBatch)
		batch := q.waiting[:n:n]
		q.waiting = q.waiting[n:]
		if n == 0 {
			q.waiting, q.running = nil, false
		}
		q.mu.Unlock()
		if n == 0 {
			return
		}
		q.run(batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// close refuses further calls and waits for those that were accepted.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wg.Wait()
}

// write runs one batch as one transaction. A transaction in which nothing
// changed is not written.
func (s *Store) write(batch []*call) {
	err := s.transact(batch)
	if err == nil {
		return
	}
	for _, c := range batch {
		c.err = err
	}
}

func (s *Store) transact(batch []*call) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.begin(true)
	if err != nil {
		return err
	}
	defer func() {
		// No request's recovery reaches this goroutine: a damaged page that
		// bbolt trips over must not end the process.
		if cause := recover(); cause != nil {
			err = s.recovered(cause, tx)
		}
	}()
	t := &transaction{tx: tx, now: s.now(), simulated: s.simulated, maxSimulated: s.maxSimulated}
	full := s.room.keep(tx.Size(), t.now)
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
	if _, err := t.expire(expirations); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	began := s.now()
	err = tx.Commit()
	s.room.committed(err, began)
	if err != nil {
		return err
	}
	s.simulated = t.simulated
	return nil
}

// update runs do in a write transaction and returns its result once it is
// durable. A caller that stops waiting does not know whether do was run.
func update[T any](ctx context.Context, s *Store, do func(*transaction) (T, error)) (T, error) {
	return enqueue(ctx, s, false, do)
}

// enqueue is update for what room was reserved for, or not.
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

// view runs do in a read transaction.
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
