package redis

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

const (
	// maxRedirects is how often a command is sent to another server, or again to the same
	// one, because its slot is moving to another node.
	maxRedirects = 6
	// retryDelay is the pause before a command is sent to the same server for the first
	// time again. It doubles with every redirect.
	retryDelay = 10 * time.Millisecond
)

var (
	// errTooFewReplicas is returned for a write that the master has and too few replicas
	// confirmed.
	errTooFewReplicas = errors.New("too few replicas confirmed a write")
	// errUnsupportedClient is returned for clients that distribute keys over servers
	// themselves.
	errUnsupportedClient = errors.New("unsupported type of client")
)

// mostCommands is how many commands most calls of the Store send. Lists of them stay on the stack.
const mostCommands = 4

// scriptKeys is the index of the first key in the arguments of EVALSHA, after the name of the
// command, the hash of the script and the number of keys.
const scriptKeys = 3

// call is a command whose keys are in one slot. Without a script, its first argument is the key.
type call struct {
	script

	// args are the command with its name. For a script it is EVALSHA.
	args []any
	// reservation is the reserved memory that the script's write uses, or nil.
	reservation *reservation
}

// key returns the key that selects the slot.
func (c *call) key() string {
	key := 1
	if c.lua != nil {
		key = scriptKeys
	}
	text, _ := c.args[key].(string)
	return text
}

// delivery is a call with the state of sending it.
type delivery struct {
	call

	// node is where to send the call. It is nil until route has chosen it.
	node *goredis.Client
	// ownsNode says that node was made for this delivery and that unroute closes it.
	ownsNode bool
	// asking says that the node does not own the slot yet and has to be sent ASKING.
	asking bool
	// redirects counts up to maxRedirects.
	redirects int
	// sendSource says that the server does not know the hash of the script.
	sendSource bool
	// retriedReadOnly says that the call was sent again because a server was read-only.
	retriedReadOnly bool
	// ambiguousErr is the error of an earlier attempt that the server may have carried
	// out.
	ambiguousErr error

	// err says why the call failed: it was not sent, not answered, or answered with an error.
	err    error
	answer *goredis.Cmd
	// wait is the answer to WAIT, or nil.
	wait *goredis.Cmd
	// placeholder is the answer to the last write of the reservation's placeholder, or
	// nil.
	placeholder *goredis.Cmd
}

// send sends calls in one round trip and returns them with their answers. It uses one pipeline or,
// in a cluster, one pipeline for each node concerned.
//
// It sends a call again only if the server said that it did not carry it out, or if the
// script is repeatable. The clients that it uses, also those of a cluster's nodes, repeat
// nothing by themselves. A cluster client would repeat every command whose answer was lost;
// send therefore does not send commands through it.
func (s *Store) send(ctx context.Context, calls ...call) ([]delivery, error) {
	deliveries := make([]delivery, len(calls))
	open := make([]*delivery, 0, mostCommands)
	for i, c := range calls {
		deliveries[i].call = c
		open = append(open, &deliveries[i])
	}
	defer func() {
		for i := range deliveries {
			deliveries[i].unroute()
		}
	}()
	// The other calls are sent even if one fails.
	var failure error
	for len(open) > 0 {
		open = slices.DeleteFunc(open, func(d *delivery) bool {
			d.err = s.route(ctx, d)
			failure = cmp.Or(failure, d.err)
			return d.err != nil
		})
		s.roundTrip(ctx, open)
		open = slices.DeleteFunc(open, func(d *delivery) bool {
			address := d.node.Options().Addr
			var again bool
			again, d.err = s.shouldRetry(ctx, d)
			if !again {
				s.readiness.record(ctx, address, &d.call, d.err)
			}
			failure = cmp.Or(failure, d.err)
			return !again
		})
	}
	return deliveries, failure
}

// route sets the node of a delivery that has none to the master of its keys.
func (s *Store) route(ctx context.Context, d *delivery) (err error) {
	if d.node != nil {
		return nil
	}
	switch c := s.client.(type) {
	case *goredis.Client:
		d.node = c
	case *goredis.ClusterClient:
		// This waits for a node only if the client does not know the slots yet.
		err = s.breakers.call(ctx, slotLookup, func() (err error) {
			d.node, err = c.MasterForKey(ctx, d.key())
			return err
		})
		s.readiness.record(ctx, slotLookup, &d.call, err)
	default:
		err = errUnsupportedClient
	}
	return err
}

// roundTrip sends the deliveries, to all nodes at once, and waits for their answers.
func (s *Store) roundTrip(ctx context.Context, deliveries []*delivery) {
	if len(deliveries) == 0 {
		return
	}
	first := deliveries[0].node
	if other := func(d *delivery) bool { return d.node != first }; slices.ContainsFunc(deliveries, other) {
		var here, elsewhere []*delivery
		for _, d := range deliveries {
			if other(d) {
				elsewhere = append(elsewhere, d)
			} else {
				here = append(here, d)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.roundTrip(ctx, elsewhere) })
		defer wg.Wait()
		deliveries = here
	}
	// A client from clientFor has the address that the cluster client uses for the node,
	// or soon will. Both therefore share one breaker. Without it, every call to a slot that
	// moves to a hanging node would open a connection and wait for the timeouts.
	err := s.breakers.call(ctx, first.Options().Addr, func() error { return s.deliver(ctx, first, deliveries) })
	if breaker.IsOpen(err) {
		for _, d := range deliveries {
			d.answer = goredis.NewCmd(ctx)
			d.answer.SetErr(err)
		}
	}
}

// deliver sends the deliveries to one node and waits for their answers. If the node
// answered none of them, deliver returns the error of one of them.
func (s *Store) deliver(ctx context.Context, node *goredis.Client, deliveries []*delivery) error {
	commands := make([]goredis.Cmder, 0, mostCommands)
	var began time.Time
	add := func(args ...any) *goredis.Cmd {
		command := goredis.NewCmd(ctx, args...)
		commands = append(commands, command)
		return command
	}
	for _, d := range deliveries {
		key := d.reservation.key(node)
		if key != "" {
			add("DEL", key)
		}
		if d.asking {
			add("ASKING")
		}
		if d.sendSource {
			d.answer = add(append([]any{"eval", d.source}, d.args[scriptKeys-1:]...)...)
		} else {
			d.answer = add(d.args...)
		}
		if d.durable && s.replicas > 0 {
			d.wait = add("WAIT", s.replicas, waitTimeout(node).Milliseconds())
		}
		if key != "" {
			began = s.now()
			for _, c := range s.scripts.placeholderWrites(key) {
				d.placeholder = add(c.args...)
			}
		}
	}
	err := execute(ctx, node, commands)
	if err != nil && !slices.ContainsFunc(commands, func(c goredis.Cmder) bool { return c.Err() != nil }) {
		// The client gives every command the error, except if the server refused the
		// commands that open a connection.
		for _, d := range deliveries {
			d.answer.SetErr(err)
		}
	}
	for _, d := range deliveries {
		if d.placeholder != nil {
			d.reservation.rewritten(began, d.placeholder.Err())
		}
	}
	for _, d := range deliveries {
		if err = d.answer.Err(); answered(err) {
			return nil
		}
	}
	return err
}

// execute sends commands to one node and waits for their answers. A pipeline costs more than one
// command.
func execute(ctx context.Context, node *goredis.Client, commands []goredis.Cmder) error {
	if len(commands) == 1 {
		return node.Process(ctx, commands[0])
	}
	pipe := node.Pipeline()
	_ = pipe.BatchProcess(ctx, slices.Clone(commands)...)
	_, err := pipe.Exec(ctx)
	return err
}

// waitTimeout returns how long a server waits for its replicas: half of the client's
// timeout. A server may check the time only ten times a second, and its answer must arrive
// before the client gives up.
func waitTimeout(client *goredis.Client) time.Duration {
	return max(client.Options().ReadTimeout/2, time.Millisecond)
}

// shouldRetry looks at the answer to d and reports whether d has to be sent again. Before
// that it sets where and how. Otherwise it returns the error of the call.
func (s *Store) shouldRetry(ctx context.Context, d *delivery) (again bool, err error) {
	err = d.answer.Err()
	if err == nil && d.wait != nil {
		n, err := d.wait.Int()
		if err == nil && n < s.replicas {
			err = errTooFewReplicas
		}
		return s.retryAmbiguous(ctx, d, err)
	}
	if err == nil {
		return false, nil
	}
	if goredis.HasErrorPrefix(err, "NOSCRIPT") && !d.sendSource {
		d.sendSource = true
		return true, nil
	}
	if isReadOnly(err) && !d.retriedReadOnly {
		// The address may lead to another server now. All connections are stale since this
		// answer, so the client opens a new one.
		d.retriedReadOnly = true
		d.unroute()
		return true, nil
	}
	if address, ok := goredis.IsMovedError(err); ok {
		return s.redirect(ctx, d, address, false, err)
	}
	if address, ok := goredis.IsAskError(err); ok {
		return s.redirect(ctx, d, address, true, err)
	}
	if goredis.IsTryAgainError(err) {
		return s.retryLater(ctx, d, err)
	}
	return s.retryAmbiguous(ctx, d, err)
}

// redirect sets the node of d to the one at address. It owns the slot or, if asking is set,
// the slot is moving there.
func (s *Store) redirect(ctx context.Context, d *delivery, address string, asking bool, err error) (bool, error) {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return false, errClusterNode
	}
	cluster.ReloadState(ctx)
	if strings.HasPrefix(address, unknownHost+":") {
		// The address follows only from the slots, which are being read again.
		d.unroute()
		return s.retryLater(ctx, d, err)
	}
	if d.redirects == maxRedirects {
		return false, err
	}
	d.redirects++
	// The cluster client has no method that returns its client for an address. Until it
	// knows where the slot is now, every such call opens a connection of its own.
	client := clientFor(d.node, address)
	d.unroute()
	d.node, d.ownsNode, d.asking = client, true, asking
	return true, nil
}

// retryLater waits a little before d is sent again. The node has moved some of its keys,
// which are in one slot, and not yet the others.
func (s *Store) retryLater(ctx context.Context, d *delivery, err error) (bool, error) {
	if d.redirects == maxRedirects {
		return false, err
	}
	pause := time.NewTimer(retryDelay << d.redirects)
	defer pause.Stop()
	d.redirects++
	select {
	case <-pause.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// retryAmbiguous reports whether to send d again after err. It does so once, if it is unknown
// whether the server carried d out and the script is repeatable.
func (s *Store) retryAmbiguous(ctx context.Context, d *delivery, err error) (bool, error) {
	if err == nil {
		return false, nil
	}
	cluster, ok := s.client.(*goredis.ClusterClient)
	if _, answered := errors.AsType[goredis.Error](err); ok && !answered {
		// Another node may have become the master of the slot.
		cluster.ReloadState(ctx)
	}
	if d.ambiguousErr != nil && breaker.IsOpen(err) {
		// The breaker prevented the second attempt. The first error says more.
		return false, d.ambiguousErr
	}
	if !d.repeatable || d.ambiguousErr != nil || !ambiguous(err) || ctx.Err() != nil {
		return false, err
	}
	d.ambiguousErr = err
	d.unroute()
	return true, nil
}

// unroute removes the node of d, so that route chooses it again, and closes it if it was
// made for d.
func (d *delivery) unroute() {
	if d.ownsNode {
		_ = d.node.Close()
	}
	d.node, d.ownsNode, d.asking = nil, false, false
}

// clientFor returns a client for another address with the settings of node. The caller
// closes it. An address without a host means the host of node.
func clientFor(node *goredis.Client, address string) *goredis.Client {
	options := *node.Options()
	i := strings.LastIndexByte(address, ':')
	host, port := strings.Trim(address[:max(i, 0)], "[]"), address[i+1:]
	if host == "" {
		host, _, _ = net.SplitHostPort(options.Addr)
	}
	options.Addr = net.JoinHostPort(host, port)
	options.NodeAddress = ""
	// The client of node has changed -1 to 0 in its options.
	options.MaxRetries = -1
	options.PoolSize = 1
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return goredis.NewClient(&options)
}
