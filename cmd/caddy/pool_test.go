package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/relay"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// forgottenConnections is how many connections are forgotten. The kernel ends each two seconds
// after bytes that are not acknowledged. A gateway that tried them one by one, with a cooldown
// of the breaker between two trials, would not work again within poll.Patience.
const forgottenConnections = 60

// awaitWorking has phones repeat calls until each has succeeded once.
func awaitWorking(t *testing.T, works func(ctx context.Context) bool) {
	t.Helper()
	const phones = 10
	ctx, cancel := context.WithTimeout(t.Context(), poll.Patience)
	defer cancel()
	var calls sync.WaitGroup
	for range phones {
		calls.Go(func() {
			for !works(ctx) && ctx.Err() == nil {
				select {
				case <-time.After(50 * time.Millisecond): // as a phone that tries again
				case <-ctx.Done():
				}
			}
		})
	}
	calls.Wait()
	require.NoError(t, ctx.Err(), "calls do not work again")
}

// However many connections to an authentication server a firewall has forgotten, calls work
// again as soon as the breaker lets one through: the gateway does not try the connections one
// by one.
func TestForgottenConnections(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	const cooldown = time.Second
	server := testbed.StartServer(t, certs)
	g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		servers := dsapp["authentication_servers"].(testbed.Object)
		servers["timeout"], servers["breaker"] = poll.Patience.String(), testbed.Object{"cooldown": cooldown.String()}
		servers["max_connections"], servers["reserved_connections"] = forgottenConnections, 0
		dsapp["requests"] = testbed.Object{"repeat": "0s"} // the calls are all the same
	})
	retrieve := func(ctx context.Context) bool {
		status, _, err := g.Try(ctx, testbed.Login.RetrievePath, testbed.FrontEndKey, testbed.RetrieveBody)
		return err == nil && status == http.StatusOK
	}

	var arrived atomic.Int64
	all := make(chan struct{})
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		if arrived.Add(1) == int64(forgottenConnections) {
			close(all)
		}
		<-all
		return false
	})
	var calls sync.WaitGroup
	for range forgottenConnections {
		calls.Go(func() { assert.True(t, retrieve(t.Context())) })
	}
	calls.Wait()
	server.Intercept(nil)
	require.Equal(t, forgottenConnections, server.DropConnections(t))

	awaitWorking(t, retrieve)
}

// The same holds for connections to Redis, even if the timeout of the store is much longer than
// the time after which the kernel gives a connection up.
func TestForgottenConnectionsToRedis(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	redis := redistest.Start(t)
	way := relay.Start(t, redis.Addr())
	g := testbed.StartGateway(t, certs, testbed.StartServer(t, certs).URL, func(dsapp testbed.Object) {
		dsapp["store"] = testbed.Object{
			"backend": "redis", "addresses": []string{way.Addr()}, "timeout": poll.Patience.String(), "pool_size": forgottenConnections,
		}
		dsapp["requests"] = testbed.Object{"repeat": "0s"} // the calls are all the same
	})
	cancelRequest := func(ctx context.Context) bool {
		status, _, err := g.Try(ctx, testbed.Login.CancelPath, testbed.FrontEndKey, testbed.RetrieveBody)
		return err == nil && status == http.StatusOK
	}

	redis.Freeze(t)
	var calls sync.WaitGroup
	for range forgottenConnections {
		calls.Go(func() { assert.True(t, cancelRequest(t.Context())) })
	}
	poll.Until(t, "connections of all calls", func() bool { return way.Accepted() >= forgottenConnections })
	redis.Thaw(t)
	calls.Wait()
	for _, c := range way.Clients() {
		relay.Drop(t, c.(*net.TCPConn))
	}

	awaitWorking(t, cancelRequest)
}

// A slow client does not occupy a connection to the authentication server: the gateway connects
// when it has the whole request.
func TestSlowCaller(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	primary := testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, nil, primary.URL)
	body := testbed.Registering.Body("5EC2E7")
	w := g.Dial(t, "http/1.1")
	w.Say(testbed.HTTP1Request(testbed.Registering.Path, testbed.BackEndKey, "", fmt.Sprintf("Content-Length: %d", len(body))))
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for i := range len(body) {
		<-tick.C
		assert.Zero(t, primary.Connections.Load(), "connections after %d of %d bytes", i, len(body))
		w.Say(body[i : i+1])
	}
	testbed.Expect(http.StatusOK, "STAT_SUCCESS", 0).Check(t, w.Hear())
	assert.EqualValues(t, 1, primary.Connections.Load())
}

// A busy server is not out of order: commands that find no place in the queue are refused at
// once, and the others are answered.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	const callers = 6
	certs := testbed.Certificates(t)
	primary := testbed.StartFaulty(t, certs, nil)
	g := testbed.StartOnFaulty(t, certs, testbed.Object{"max_connections": 1, "max_queue": 1, "breaker": testbed.Object{"failures": 1, "cooldown": "10m"}}, primary.URL)
	release := make(chan struct{})
	primary.Misbehave(t, testbed.Answering(func(x *testbed.Incoming) {
		select {
		case <-release:
			x.Respond(http.StatusOK, testbed.XML, x.Answer())
		case <-x.Context.Done():
		}
	}))
	replies := make(chan testbed.Reply, callers)
	for range callers {
		go func() {
			got, err := g.Send(t.Context(), testbed.Registering, "5EC2E7")
			assert.NoError(t, err)
			replies <- got
		}()
	}
	for range callers - 2 {
		got := <-replies
		assert.Equal(t, http.StatusServiceUnavailable, got.Status)
		assert.NotEmpty(t, got.Header.Get("Retry-After"))
	}
	close(release)
	for range 2 {
		assert.Equal(t, http.StatusOK, (<-replies).Status)
	}
	assert.Equal(t, http.StatusOK, statusOf(t, g, testbed.Registering))
	assert.Equal(t, 3, primary.Arrived(testbed.Registering.Operation))
	assert.NotContains(t, g.Logs.String(), breakerOpened)
}
