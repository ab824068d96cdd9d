package redis

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// A call without an answer takes the trust from connections that brought nothing since it
// began, and from no others: a server that is slow is not connected to again and again. To
// a server that takes no writes no connection is kept, whatever it brings afterwards.
func TestTrust(t *testing.T) {
	t.Parallel()
	trust := new(staleness)
	connect := func() (brings func(), trusted func() bool) {
		client, server := net.Pipe()
		c, err := trust.dialer(func(context.Context, string, string) (net.Conn, error) { return client, nil })(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Close()
			server.Close()
		})
		brings = func() {
			t.Helper()
			go func() { _, _ = server.Write([]byte("+")) }()
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
		}
		return brings, func() bool {
			_, err := c.(*connection).SyscallConn()
			return err == nil
		}
	}
	busyBrings, busy := connect()
	idleBrings, idle := connect()
	began := trust.begin()
	busyBrings()
	trust.end(t.Context(), began, goredis.ErrPoolTimeout)
	if !busy() || !idle() {
		t.Error("a call that says nothing about the server took the trust away")
	}
	trust.end(t.Context(), began, io.EOF)
	if !busy() || idle() {
		t.Errorf("after a failure: busy trusted %v, idle %v", busy(), idle())
	}
	idleBrings()
	if idle() {
		t.Error("trusted again")
	}
	refused := goredis.NewCmd(t.Context())
	refused.SetErr(serverError("READONLY You can't write against a read only replica."))
	trust.end(t.Context(), trust.begin(), refused.Err(), refused)
	busyBrings()
	if busy() {
		t.Error("a connection to a replica is trusted")
	}
	if _, fresh := connect(); !fresh() {
		t.Error("a new connection is not trusted")
	}
	if _, err := (failedConnection{errors.New("refused")}).SyscallConn(); err == nil {
		t.Error("a connection that was not made is trusted")
	}
}
