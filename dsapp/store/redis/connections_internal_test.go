package redis

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// A call without an answer makes the connections stale that have received nothing since it
// began, and no others, so that a slow server is not connected to again and again. An answer
// that the server is read-only makes all connections stale, whatever they receive later.
func TestStaleness(t *testing.T) {
	t.Parallel()
	staleness := new(staleness)
	connect := func() (receive func(), stale func() bool) {
		client, server := net.Pipe()
		c, err := staleness.dialer(func(context.Context, string, string) (net.Conn, error) { return client, nil })(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Close()
			server.Close()
		})
		receive = func() {
			t.Helper()
			go func() { _, _ = server.Write([]byte("+")) }()
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
		}
		return receive, func() bool {
			_, err := c.(*connection).SyscallConn()
			return err != nil
		}
	}
	busyReceives, busyStale := connect()
	idleReceives, idleStale := connect()
	began := staleness.begin()
	busyReceives()
	staleness.end(t.Context(), began, goredis.ErrPoolTimeout)
	if busyStale() || idleStale() {
		t.Error("an inconclusive call made a connection stale")
	}
	staleness.end(t.Context(), began, io.EOF)
	if busyStale() || !idleStale() {
		t.Errorf("after a failure: busy stale %v, idle %v", busyStale(), idleStale())
	}
	idleReceives()
	if !idleStale() {
		t.Error("a stale connection is used again")
	}
	refused := goredis.NewCmd(t.Context())
	refused.SetErr(serverError("READONLY You can't write against a read only replica."))
	staleness.end(t.Context(), staleness.begin(), refused.Err(), refused)
	busyReceives()
	if !busyStale() {
		t.Error("a connection to a read-only server is used again")
	}
	if _, stale := connect(); stale() {
		t.Error("a new connection is stale")
	}
	if _, err := (failedConnection{errors.New("refused")}).SyscallConn(); err == nil {
		t.Error("a connection that was not made is used")
	}
}
