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
	// roomSize is what a server needs for a record: the record with its overhead, and
	// the buffers of the connection that it comes on.
	roomSize = 8 * activation.MaxRecord
	// proofLifetime is how long a write proves that the next one is possible.
	proofLifetime = time.Second
	// tagsLifetime is how long a master is not known that joined a cluster.
	tagsLifetime = 10 * time.Second
	// maxTags is how many hash tags are tried to find one for each master of a cluster.
	// A master for which there is none has hardly any slots.
	maxTags = 4096
)

// room is the memory for one record, on the server or on every master of a cluster: a key
// that is as large. A server compares the memory in use with its limit before it carries
// out a command, so that only a second write to the key proves that the first one had
// room. Whoever creates a record deletes the key just before, and makes it anew after.
type room struct {
	token string
	// keys by the addresses of the servers; nil after a record took their place.
	keys map[string]string
	// proven is when the writes began, zero if another one failed since.
	proven time.Time
}

// key returns the key on a server, empty if there is none.
func (r *room) key(node *goredis.Client) string {
	if r == nil {
		return ""
	}
	return r.keys[node.Options().Addr]
}

// remade takes note of how the writes to one key went, which began at a moment. They say
// nothing of other servers.
func (r *room) remade(began time.Time, err error) {
	switch {
	case err != nil:
		r.keys, r.proven = nil, time.Time{}
	case len(r.keys) == 1:
		r.proven = began
	}
}

// rooms are those of this process. Which registration has which makes no difference.
type rooms struct {
	mu sync.Mutex
	// held are reserved, those without keys first. idle are not any more: their keys
	// stay until their lifetimes end, and they can be reserved again.
	held, idle []*room
	// tags were found at a moment. See Store.tags.
	tags  []string
	found time.Time
}

// hold has a room reserved.
func (rs *rooms) hold(r *room) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.keys == nil {
		rs.held = slices.Insert(rs.held, 0, r)
		return
	}
	rs.held = append(rs.held, r)
}

// borrow takes a room that is reserved, for a record that is about to be created. It
// returns nil if there is none.
func (rs *rooms) borrow() *room {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return pop(&rs.held)
}

// release has a room that is reserved become idle: one without keys if there is one,
// since its record was created.
func (rs *rooms) release() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.held) > 0 {
		rs.idle = append(rs.idle, rs.held[0])
		rs.held = slices.Delete(rs.held, 0, 1)
	}
}

// giveUp has a room become idle that is not reserved.
func (rs *rooms) giveUp(r *room) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.idle = append(rs.idle, r)
}

// reuse takes a room that is idle. It returns nil if there is none.
func (rs *rooms) reuse() *room {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return pop(&rs.idle)
}

// doubt forgets what was proven, after a call that failed.
func (rs *rooms) doubt() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range slices.Concat(rs.idle, rs.held) {
		r.proven = time.Time{}
	}
}

func pop(from *[]*room) *room {
	last := len(*from) - 1
	if last < 0 {
		return nil
	}
	r := (*from)[last]
	*from = (*from)[:last]
	return r
}

// Reserve implements activation.Store. It writes what is as large as a record, unless a
// room is left from a moment ago.
func (s *Store) Reserve(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	r := s.rooms.reuse()
	if r == nil {
		r = &room{token: rand.Text()}
	}
	if began := s.now(); began.Sub(r.proven) >= proofLifetime {
		if err := s.write(ctx, r); err != nil {
			// What was made of its keys is overwritten by the next attempt.
			s.rooms.giveUp(r)
			s.rooms.doubt()
			return nil, unavailable(err)
		}
		r.proven = began
	}
	s.rooms.hold(r)
	return sync.OnceFunc(s.rooms.release), nil
}

// write makes the keys of r, on all servers at once.
func (s *Store) write(ctx context.Context, r *room) error {
	tags, err := s.tags(ctx)
	if err != nil {
		return err
	}
	r.keys = make(map[string]string, len(tags))
	for _, tag := range tags {
		d := delivery{call: call{keys: []string{s.prefix + tag + ":room:" + r.token}}}
		if err := s.route(ctx, &d); err != nil {
			return err
		}
		r.keys[d.node.Options().Addr] = d.keys[0]
	}
	var calls []call
	for _, key := range r.keys {
		calls = append(calls, s.scripts.writes(key)...)
	}
	_, err = s.send(ctx, calls...)
	return err
}

// tags are what the keys of a room have behind the prefix, one for every master of a
// cluster: what stands between braces decides where a key belongs.
func (s *Store) tags(ctx context.Context) ([]string, error) {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return []string{""}, nil
	}
	s.rooms.mu.Lock()
	tags, age := s.rooms.tags, s.now().Sub(s.rooms.found)
	s.rooms.mu.Unlock()
	if age < tagsLifetime {
		return tags, nil
	}
	found := s.now()
	var mu sync.Mutex
	missing := map[string]bool{}
	err := s.guard.pass(ctx, clusterTable, func() error {
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
	for i := 0; i < maxTags && len(missing) > 0; i++ {
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
	s.rooms.mu.Lock()
	defer s.rooms.mu.Unlock()
	s.rooms.tags, s.rooms.found = tags, found
	return tags, nil
}
