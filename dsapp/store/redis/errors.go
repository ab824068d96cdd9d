package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// errUnexpectedAnswer is returned for an answer that no script gives.
var errUnexpectedAnswer = errors.New("unexpected answer")

// errUnknownMaster is returned if no Sentinel watches a master of the configured name.
var errUnknownMaster = errors.New("no Sentinel knows the master")

// errClusterNode is returned if a server redirects a command although Settings.Cluster is
// not set.
var errClusterNode = errors.New("the server is a node of a cluster, and the store is not configured as one")

// maxServerText is how many bytes of a server's error are quoted at most.
const maxServerText = 80

// unavailable returns err wrapped in activation.ErrUnavailable, or in activation.ErrDamaged
// if the server stores something that no script writes. It leaves out everything that was
// sent or stored: an error of the server may quote the arguments of a command, and one of
// the client a part of an answer.
func unavailable(err error) error {
	if errors.Is(err, goredis.Nil) {
		// Only a Sentinel gives this answer to a command of a Store. The client then wraps
		// it in the error of connecting.
		if errors.Unwrap(err) == nil {
			err = errUnexpectedAnswer
		} else {
			err = errUnknownMaster
		}
	}
	if server, ok := errors.AsType[goredis.Error](err); ok {
		// Redis 6 puts a text before the error of a command in a script.
		if goredis.HasErrorPrefix(err, damaged) || strings.Contains(server.Error(), "WRONGTYPE ") {
			return fmt.Errorf("%w: redis answered: %s", activation.ErrDamaged, serverText(server.Error()))
		}
		return fmt.Errorf("%w: redis answered: %s%s", activation.ErrUnavailable, serverText(server.Error()), advice(server.Error()))
	}
	if !isConnectionError(err) {
		return fmt.Errorf("%w: redis: %w", activation.ErrUnavailable, errUnexpectedAnswer)
	}
	return fmt.Errorf("%w: redis: %w", activation.ErrUnavailable, err)
}

// serverText returns the beginning of a server's error, up to the first character that may
// be the beginning of a quoted argument.
func serverText(s string) string {
	s = s[:min(len(s), maxServerText)]
	end := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != ' ' && r != '-' && r != '_'
	})
	if end >= 0 {
		s = s[:end]
	}
	return strings.TrimSpace(s)
}

// advice returns what to add to the text of a server's error, so that it says what to do.
// For a command that the server does not know it adds the name of the command, which the
// error quotes before the first comma; the arguments follow. The command SENTINEL is only
// sent to Sentinels.
func advice(s string) string {
	if strings.HasPrefix(s, "ERR The user executing the script can't run") {
		return "not run one of its commands: permit all that the gateway's documentation lists"
	}
	command, unknown := strings.CutPrefix(s, "ERR unknown command ")
	if !unknown {
		return ""
	}
	command, _, _ = strings.Cut(command, ",")
	command = strings.ToUpper(serverText(strings.Trim(command, "'`")))
	if strings.Contains(command, "SENTINEL") {
		return " " + command + " (the server is no Sentinel)"
	}
	return " " + command + " (is this a Redis server of version 6 or later?)"
}

// isReadOnly reports whether the server refused to write because it is a replica.
func isReadOnly(err error) bool {
	server, sent := errors.AsType[goredis.Error](err)
	// Redis 6 puts a text before the error of a command in a script.
	return sent && strings.Contains(server.Error(), "READONLY ")
}

// isConnectionError reports whether err is an error of the connection or of this package.
// Such errors contain addresses and names of certificates, but nothing that was sent.
func isConnectionError(err error) bool {
	for _, target := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		goredis.ErrClosed, goredis.ErrPoolTimeout, goredis.ErrPoolExhausted, errUnexpectedAnswer, errTooFewReplicas, errUnsupportedClient, errUnknownMaster, errClusterNode,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	_, network := errors.AsType[net.Error](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return network || certificate || record || breaker.IsOpen(err)
}

// ambiguous reports whether the server may have carried out a command that returned err,
// because the connection was lost or the answer did not arrive in time.
func ambiguous(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if errors.Is(err, goredis.ErrPoolTimeout) || errors.Is(err, goredis.ErrClosed) {
		return false
	}
	if _, ok := errors.AsType[goredis.Error](err); ok {
		return false
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok && operation.Op == "dial" {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network
}
