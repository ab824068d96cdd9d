package redis_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// lossyConnection is a connection that closes instead of returning the next answer when lose is
// set.
type lossyConnection struct {
	net.Conn

	lose *atomic.Bool
}

func (c lossyConnection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.lose.CompareAndSwap(true, false) {
		c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// When the answer to a repeatable script is lost, it is repeated once. A Take is not repeated,
// and its attempt stays counted.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var lose atomic.Bool
	client := goredis.NewClient(&goredis.Options{
		MaxRetries: -1,
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, server.Addr())
			return lossyConnection{conn, &lose}, err
		},
	})
	t.Cleanup(func() { client.Close() })
	s := redis.New(client, redis.Options{})
	for _, c := range calls(s, "warm-up") {
		if err := c.call(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	lost := func(call string) {
		t.Helper()
		if lose.Load() {
			t.Fatalf("%s: no answer was lost", call)
		}
	}

	r := record("id-1")
	lose.Store(true)
	if _, created, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !created {
		t.Fatalf("create: %v, error %v", created, err)
	}
	lost("create")

	put(t, s, "id-1", handshake(r))
	lose.Store(true)
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{1}, activation.Tag{}, 3); !errors.Is(err, activation.ErrUnavailable) || ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	lost("take")

	put(t, s, "id-1", handshake(r))
	take(t, s, "id-1", activation.Token{2}, 2, true)
	lose.Store(true)
	settle(t, s, r, activation.Token{2}, true)
	lost("settle")
	for _, want := range []bool{true, false} {
		if _, ok, err := s.AdmitDevice(t.Context(), "id-1", 3); err != nil || ok != want {
			t.Fatalf("admit device: %v, error %v, want %v", ok, err, want)
		}
	}
	// The Take whose answer was lost reserved one attempt.
	put(t, s, "id-1", handshake(r))
	take(t, s, "id-1", activation.Token{3}, 1, false)
	put(t, s, "id-1", handshake(r))
	take(t, s, "id-1", activation.Token{4}, 2, true)

	mark := func(place string, token byte) repeat.Mark {
		return repeat.Mark{Place: place, Token: repeat.Token{token}, Lifetime: time.Minute}
	}
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"mark, owner", func() error {
			e, found, _, _, err := s.MarkOwner(t.Context(), mark("1", 1), ownership.Login, "1")
			if err == nil && (!found || e.Token != repeat.Token{1}) {
				return errors.New("the mark is not returned")
			}
			return err
		}},
		{"mark, pending", func() error {
			_, _, _, err := s.MarkPending(t.Context(), mark(serialNumber, 1), ownership.Login, serialNumber)
			return err
		}},
		{"keep, release", func() error {
			return s.KeepRelease(t.Context(), mark("1", 1), []byte("outcome"), ownership.Login, "1", ownership.Token{1}, serialNumber)
		}},
		{"keep, remove", func() error {
			return s.KeepRemove(t.Context(), mark("id-1", 1), []byte("outcome"), "id-1", r.Generation)
		}},
	} {
		lose.Store(true)
		err := c.call()
		lost(c.name)
		// The list of a device is not changed twice.
		if unlisted := c.name == "keep, release"; unlisted != (err != nil) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	// The outcome was kept, although the list of the device may still have the request.
	if e, found, err := s.Kept(t.Context(), "1", repeat.Digest{}); err != nil || !found || string(e.Outcome) != "outcome" {
		t.Errorf("kept %v, error %v", found, err)
	}
}
