package redis

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

const (
	// placeholderSize is the memory in bytes that a server needs for one record: the
	// record, its overhead, and the buffers of the connection that it is sent on.
	placeholderSize = 8 * activation.MaxRecord
	// writeValidity is how long a successful write counts as evidence that the server
	// accepts the next one.
	writeValidity = time.Second
	// hashTagsLifetime is how long the list of a cluster's masters is used before it is
	// read again. A master that joins the cluster is unknown for that long.
	hashTagsLifetime = 10 * time.Second
	// maxHashTags is how many hash tags are tried to find one for each master of a
	// cluster. A master for which none is found has hardly any slots.
	maxHashTags = 4096
)

// reservation is memory for one record on the server or, in a cluster, on every master. The
// memory is occupied by a placeholder: a key with a value of placeholderSize bytes.
//
// A server checks its memory limit before it runs a command, not after. That the
// placeholder fitted is therefore known only when a second write to it succeeds. Create
// deletes the placeholder, writes the record and writes the placeholder again, in one
// pipeline.
type reservation struct {
	// token makes the placeholders' keys unique.
	token string
	// keys are the placeholders' keys by the address of their server. They are nil if
	// there is no placeholder, because a record took its memory.
	keys map[string]string
	// lastDurableWrite is when the last successful write of all placeholders began. It is
	// zero if a write has failed since.
	lastDurableWrite time.Time
}

// key returns the key of the placeholder on a server, or "" if there is none.
func (r *reservation) key(node *goredis.Client) string {
	if r == nil {
		return ""
	}
	return r.keys[node.Options().Addr]
}

// rewritten records the outcome of writing one placeholder again. The write began at the
// given time. It says nothing about the other servers of a cluster.
func (r *reservation) rewritten(began time.Time, err error) {
	switch {
	case err != nil:
		r.keys, r.lastDurableWrite = nil, time.Time{}
	case len(r.keys) == 1:
		r.lastDurableWrite = began
	}
}

// reservations are the reservations of this process. They are interchangeable: a record
// may use any of them.
type reservations struct {
	mu sync.Mutex
	// reserved are in use by callers of Reserve, those without placeholders first. idle
	// are not: their placeholders stay until they expire, and Reserve uses them again.
	reserved, idle []*reservation
	// hashTags are the result of Store.hashTags, which read them at hashTagsRead.
	hashTags     []string
	hashTagsRead time.Time
}

// addReserved adds a reservation that is in use.
func (rs *reservations) addReserved(r *reservation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.keys == nil {
		rs.reserved = slices.Insert(rs.reserved, 0, r)
		return
	}
	rs.reserved = append(rs.reserved, r)
}

// takeReserved removes a reservation that is in use and returns it, for a record that is
// about to be created. It returns nil if there is none.
func (rs *reservations) takeReserved() *reservation {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return pop(&rs.reserved)
}

// release makes one reservation idle. It prefers one without placeholders, because the
// record of that one was created.
func (rs *reservations) release() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.reserved) > 0 {
		rs.idle = append(rs.idle, rs.reserved[0])
		rs.reserved = slices.Delete(rs.reserved, 0, 1)
	}
}

// addIdle adds a reservation that is not in use.
func (rs *reservations) addIdle(r *reservation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.idle = append(rs.idle, r)
}

// takeIdle removes an idle reservation and returns it, or nil if there is none.
func (rs *reservations) takeIdle() *reservation {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return pop(&rs.idle)
}

// forgetWrites clears lastDurableWrite of every reservation, after a call that failed.
func (rs *reservations) forgetWrites() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range slices.Concat(rs.idle, rs.reserved) {
		r.lastDurableWrite = time.Time{}
	}
}

func pop(from *[]*reservation) *reservation {
	last := len(*from) - 1
	if last < 0 {
		return nil
	}
	r := (*from)[last]
	*from = (*from)[:last]
	return r
}

// Reserve implements activation.Store. It writes placeholders, unless an idle reservation
// has some that were written within writeValidity.
func (s *Store) Reserve(ctx context.Context) (release func(), err error) {
	defer s.observe.Begin(ctx, "reserve").End(nil, &err)
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	r := s.reservations.takeIdle()
	if r == nil {
		r = &reservation{token: rand.Text()}
	}
	if began := s.now(); began.Sub(r.lastDurableWrite) >= writeValidity {
		if err := s.writePlaceholders(ctx, r); err != nil {
			// The next attempt uses the same keys, so that failures do not add keys.
			s.reservations.addIdle(r)
			s.reservations.forgetWrites()
			return nil, unavailable(err)
		}
		r.lastDurableWrite = began
	}
	s.reservations.addReserved(r)
	return sync.OnceFunc(s.reservations.release), nil
}

// writePlaceholders writes the placeholders of r on all servers at once.
func (s *Store) writePlaceholders(ctx context.Context, r *reservation) error {
	tags, err := s.hashTags(ctx)
	if err != nil {
		return err
	}
	r.keys = make(map[string]string, len(tags))
	for _, tag := range tags {
		key := s.prefix + tag + ":room:" + r.token
		d := delivery{call: call{args: []any{"GET", key}}}
		if err := s.route(ctx, &d); err != nil {
			return err
		}
		r.keys[d.node.Options().Addr] = key
	}
	var calls []call
	for _, key := range r.keys {
		calls = append(calls, s.scripts.placeholderWrites(key)...)
	}
	_, err = s.send(ctx, calls...)
	return err
}

// hashTags returns what the keys of placeholders have after the prefix. In a cluster it is
// one hash tag for every master, such as ":{7}": the part in braces selects the slot of a
// key and thereby its master. Without a cluster it is one empty string.
func (s *Store) hashTags(ctx context.Context) ([]string, error) {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return []string{""}, nil
	}
	s.reservations.mu.Lock()
	tags, age := s.reservations.hashTags, s.now().Sub(s.reservations.hashTagsRead)
	s.reservations.mu.Unlock()
	if age < hashTagsLifetime {
		return tags, nil
	}
	began := s.now()
	var mu sync.Mutex
	missing := map[string]bool{}
	err := s.breakers.call(ctx, slotLookup, func() error {
		return cluster.ForEachMaster(ctx, func(_ context.Context, node *goredis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			missing[node.Options().Addr] = true
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	tags = nil
	for i := 0; i < maxHashTags && len(missing) > 0; i++ {
		tag := ":{" + strconv.Itoa(i) + "}"
		node, err := cluster.MasterForKey(ctx, tag)
		if err != nil {
			return nil, err
		}
		if address := node.Options().Addr; missing[address] {
			delete(missing, address)
			tags = append(tags, tag)
		}
	}
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	s.reservations.hashTags, s.reservations.hashTagsRead = tags, began
	return tags, nil
}
