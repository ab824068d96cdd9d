package redis_test

import (
	"context"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// An idle store finds out by itself that its server is lost, hangs or is back, and stops to ask
// when its watch ends.
func TestWatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: 200 * time.Millisecond}), redis.Options{})
	if _, err := s.Ready(); err == nil {
		t.Fatal("ready without a call")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx)
	}()
	ready := func(want bool) func() bool {
		return func() bool {
			_, err := s.Ready()
			return (err == nil) == want
		}
	}
	poll.Until(t, "the store to be ready", ready(true))
	server.Stop()
	poll.Until(t, "the loss to be found", ready(false))
	server.Restart(t)
	poll.Until(t, "the store to be ready again", ready(true))
	server.Freeze(t)
	poll.Until(t, "the hanging server to be found", ready(false))
	server.Thaw(t)
	poll.Until(t, "the store to be ready after that", ready(true))
	stop()
	poll.Receive(t, "the end of the watch", ended)
	if keys := server.Command(t, "DBSIZE"); keys != "0" {
		t.Errorf("the watch wrote %s keys", keys)
	}
}
