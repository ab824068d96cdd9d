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

// errAnswer tells that the server answered something that no script returns.
var errAnswer = errors.New("unexpected answer")

// errMaster tells that a Sentinel answered that there is nothing of that name.
var errMaster = errors.New("no Sentinel knows the master")

// errNode tells that a server sent a command on to another one of its cluster.
var errNode = errors.New("the server is a node of a cluster, and the store is not configured as one")

// maxServerText is how much of a server's error is repeated.
const maxServerText = 80

// unavailable marks err as the store's. It repeats nothing that was sent or
// stored: a server's error may quote a command's arguments, and a client's error
// a part of an answer.
func unavailable(err error) error {
	if errors.Is(err, goredis.Nil) {
		// Nothing that a Store asks of a server has this answer. That of a Sentinel is why
		// there is no connection.
		if errors.Unwrap(err) == nil {
			err = errAnswer
		} else {
			err = errMaster
		}
	}
	if server, ok := errors.AsType[goredis.Error](err); ok {
		// Redis 6 has its own words before those of a failed command of a script.
		if goredis.HasErrorPrefix(err, damaged) || strings.Contains(server.Error(), "WRONGTYPE ") {
			return fmt.Errorf("%w: redis answered: %s", activation.ErrDamaged, serverText(server.Error()))
		}
		return fmt.Errorf("%w: redis answered: %s%s", activation.ErrUnavailable, serverText(server.Error()), advice(server.Error()))
	}
	if !speaksOfConnection(err) {
		return fmt.Errorf("%w: redis: %w", activation.ErrUnavailable, errAnswer)
	}
	return fmt.Errorf("%w: redis: %w", activation.ErrUnavailable, err)
}

// serverText returns the beginning of a server's error up to the first character
// that can introduce an argument.
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

// advice completes the text of a server's error where that does not say what to do. It
// names a command that a server does not know, and says what that means. Only
// Sentinels are sent SENTINEL. The command is quoted before the first comma, its arguments
// follow it.
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

// readOnly reports whether the server took nothing of a command, as it is a replica.
func readOnly(err error) bool {
	server, sent := errors.AsType[goredis.Error](err)
	// Redis 6 has its own words before those of a failed command of a script.
	return sent && strings.Contains(server.Error(), "READONLY ")
}

// speaksOfConnection reports whether err comes from the way to the server, whose
// errors name addresses and certificates only.
func speaksOfConnection(err error) bool {
	for _, target := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		goredis.ErrClosed, goredis.ErrPoolTimeout, goredis.ErrPoolExhausted, errAnswer, errReplicas, errClient, errMaster, errNode,
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

// ambiguous reports whether err leaves open if the server did what was asked: the
// connection was lost, or nothing came back in time.
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
