package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// serverError implements goredis.Error, like errors that the server sends.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

var _ goredis.Error = serverError("")

// Errors say what is wrong and do not contain what was sent or stored. Those that leave open
// whether the server carried out a command are ambiguous.
func TestErrors(t *testing.T) {
	t.Parallel()
	reset := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", errors.New("connection reset by peer"))}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	timeout := &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	tests := []struct {
		err       error
		want      string
		ambiguous bool
	}{
		{serverError("OOM command not allowed when used memory > 'maxmemory'."), "OOM command not allowed when used memory", false},
		{serverError("READONLY You can't write against a read only replica."), "READONLY You can", false},
		{serverError("MISCONF Redis is configured to save RDB snapshots, but"), "MISCONF Redis is configured", false},
		{serverError("CLUSTERDOWN The cluster is down"), "CLUSTERDOWN The cluster is down", false},
		{serverError("LOADING Redis is loading the dataset in memory"), "LOADING Redis is loading", false},
		{serverError("ERR The user executing the script can't run this command or subcommand script: SECRET"), "ERR The user executing the script cannot run one of its commands: permit all", false},
		{serverError("ERR unknown command 'evalsha', with args beginning with: 'SECRET' 'id-1'"), "ERR unknown command EVALSHA (is this a Redis server of version 6 or later?)", false},
		{serverError("ERR unknown command `SET`, with args beginning with: `sentinel:SECRET`"), "ERR unknown command SET (is this a Redis server of version 6 or later?)", false},
		{serverError("ERR unknown command 'SENTINEL', with args beginning with: 'SECRET'"), "ERR unknown command SENTINEL (the server is no Sentinel)", false},
		{fmt.Errorf("unreachable: %w", serverError("ERR unknown command 'sentinel', with args")), "ERR unknown command SENTINEL (the server is no Sentinel)", false},
		{errClusterNode, "the server is a node of a cluster, and the store is not configured as one", false},
		{serverError("NOPERM can't access SECRET"), "NOPERM can", false},
		{serverError("WRONGTYPE Operation against a key holding the wrong kind of value"), "WRONGTYPE Operation against", false},
		{serverError("ERR " + strings.Repeat("x", 100) + " SECRET"), "ERR xxx", false},
		{fmt.Errorf("redis: can't parse %.100q", "SECRET"), "unexpected answer", false},
		{errUnexpectedAnswer, "unexpected answer", false},
		{errTooFewReplicas, "too few replicas", false},
		{fmt.Errorf("redis: all sentinels specified in configuration are unreachable: %w", goredis.Nil), "no Sentinel knows", false},
		{goredis.Nil, "unexpected answer", false},
		{reset, "connection reset by peer", true},
		{timeout, "timeout", true},
		{io.EOF, "EOF", true},
		{io.ErrUnexpectedEOF, "EOF", true},
		{dial, "connection refused", false},
		{context.DeadlineExceeded, "deadline exceeded", true},
		{context.Canceled, "canceled", false},
		{goredis.ErrPoolTimeout, "pool timeout", false},
		{goredis.ErrClosed, "closed", false},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "unknown authority", false},
	}
	for _, tt := range tests {
		err := unavailable(tt.err)
		if !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%v does not wrap ErrUnavailable", err)
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q does not contain %q", err, tt.want)
		}
		if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "id-1") {
			t.Errorf("%q repeats an argument or an answer", err)
		}
		if got := ambiguous(tt.err); got != tt.ambiguous {
			t.Errorf("%v: ambiguous %v, want %v", tt.err, got, tt.ambiguous)
		}
	}
}
