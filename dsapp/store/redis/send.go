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
	// maxDetours is how often a command goes to another server, or comes back
	// later, because its slot is on the move.
	maxDetours = 6
	// detourDelay is the first pause before a command comes back. Every next one
	// is twice as long.
	detourDelay = 10 * time.Millisecond
)

var (
	// errReplicas tells that a write is on the master and on too few replicas.
	errReplicas = errors.New("too few replicas confirmed a write")
	// errClient tells that a Store was made on a client that spreads keys itself.
	errClient = errors.New("unsupported type of client")
)

// call is a script, or without one a command, on keys of one slot.
type call struct {
	script

	keys []string
	args []any
	// room makes way for what the script writes. Nil if there is none.
	room *room
}

// delivery is a call on its way.
type delivery struct {
	call

	node *goredis.Client
	// detour says that node is for this delivery alone, asking that the slot is
	// not its own yet.
	detour, asking bool
	// detours counts up to maxDetours.
	detours int
	// source says that the server does not know the script by its hash.
	source bool
	// renewed says that it went once more on a new connection, because the server
	// takes no writes.
	renewed bool
	// doubt is the error of an earlier attempt of which it is unknown if it arrived.
	doubt error

	// made is the last write to the key of the room.
	answer, wait, made *goredis.Cmd
}

// send carries out calls in one round trip: in one pipeline, or on a cluster in
// one for every node that is concerned. Nothing is sent a second time unless a
// server said that it did not do it, or the script may be repeated: the clients
// that it uses repeat nothing, neither that of a single server nor those of a
// cluster's nodes. A cluster client itself would repeat what it lost the answer
// of.
func (s *Store) send(ctx context.Context, calls ...call) ([]*goredis.Cmd, error) {
	deliveries := make([]*delivery, len(calls))
	for i, c := range calls {
		deliveries[i] = &delivery{call: c}
		defer deliveries[i].back()
	}
	// A call that fails does not keep the others from arriving.
	var failure error
	for open := deliveries; len(open) > 0; {
		open = slices.DeleteFunc(slices.Clone(open), func(d *delivery) bool {
			err := s.route(ctx, d)
			failure = cmp.Or(failure, err)
			return err != nil
		})
		s.exchange(ctx, open)
		open = slices.DeleteFunc(open, func(d *delivery) bool {
			again, err := s.judge(ctx, d)
			failure = cmp.Or(failure, err)
			return !again
		})
	}
	if failure != nil {
		return nil, failure
	}
	answers := make([]*goredis.Cmd, len(deliveries))
	for i, d := range deliveries {
		answers[i] = d.answer
	}
	return answers, nil
}

// route chooses the node for a delivery that has none: the master of its keys.
func (s *Store) route(ctx context.Context, d *delivery) (err error) {
	if d.node != nil {
		return nil
	}
	switch c := s.client.(type) {
	case *goredis.Client:
		d.node = c
	case *goredis.ClusterClient:
		// This waits for nodes only until one has told where the slots are.
		err = s.guard.pass(ctx, clusterTable, func() (err error) {
			d.node, err = c.MasterForKey(ctx, d.keys[0])
			return err
		})
	default:
		err = errClient
	}
	return err
}

// exchange sends the deliveries and waits for their answers.
func (s *Store) exchange(ctx context.Context, deliveries []*delivery) {
	if len(deliveries) == 0 {
		return
	}
	first := deliveries[0].node
	var here, elsewhere []*delivery
	for _, d := range deliveries {
		if d.node == first {
			here = append(here, d)
		} else {
			elsewhere = append(elsewhere, d)
		}
	}
	var wg sync.WaitGroup
	if len(elsewhere) > 0 {
		wg.Go(func() { s.exchange(ctx, elsewhere) })
	}
	// That of a detour is the address under which the cluster's client knows the
	// node, or soon will: a slot on its way to a node that hangs would cost a new
	// connection and the timeouts for every call.
	err := s.guard.pass(ctx, first.Options().Addr, func() error { return s.deliver(ctx, first, here) })
	if breaker.IsOpen(err) {
		for _, d := range here {
			d.answer = goredis.NewCmd(ctx)
			d.answer.SetErr(err)
		}
	}
	wg.Wait()
}

// deliver sends the deliveries to one node and waits for their answers. The error
// is that of one of them if none was answered.
func (s *Store) deliver(ctx context.Context, node *goredis.Client, deliveries []*delivery) error {
	pipe := node.Pipeline()
	for _, d := range deliveries {
		place := d.room.key(node)
		if place != "" {
			pipe.Do(ctx, "DEL", place)
		}
		if d.asking {
			pipe.Do(ctx, "ASKING")
		}
		switch {
		case d.Script == nil:
			d.answer = pipe.Do(ctx, d.args...)
		case d.source:
			d.answer = d.Eval(ctx, pipe, d.keys, d.args...)
		default:
			d.answer = d.EvalSha(ctx, pipe, d.keys, d.args...)
		}
		if d.durable && s.replicas > 0 {
			d.wait = pipe.Do(ctx, "WAIT", s.replicas, waitTimeout(node).Milliseconds())
		}
		if place != "" {
			for _, c := range s.scripts.writes(place) {
				d.made = c.EvalSha(ctx, pipe, c.keys, c.args...)
			}
		}
	}
	began := s.now()
	sent, err := pipe.Exec(ctx)
	if err != nil && !slices.ContainsFunc(sent, func(c goredis.Cmder) bool { return c.Err() != nil }) {
		// The client tells every command of a failure, except if the server refused
		// the connection's greeting.
		for _, d := range deliveries {
			d.answer.SetErr(err)
		}
	}
	for _, d := range deliveries {
		if d.made != nil {
			d.room.remade(began, d.made.Err())
		}
	}
	for _, d := range deliveries {
		if err = d.answer.Err(); answered(err) {
			return nil
		}
	}
	return err
}

// waitTimeout returns how long a server waits for its replicas. It ends before the
// client gives up: a server may look at its clock no more than ten times a second.
func waitTimeout(client *goredis.Client) time.Duration {
	return max(client.Options().ReadTimeout/2, time.Millisecond)
}

// judge reports whether d has to be sent once more, or why it failed.
func (s *Store) judge(ctx context.Context, d *delivery) (again bool, err error) {
	err = d.answer.Err()
	if err == nil && d.wait != nil {
		n, err := d.wait.Int()
		if err == nil && n < s.replicas {
			err = errReplicas
		}
		return s.lost(ctx, d, err)
	}
	if err == nil {
		return false, nil
	}
	if goredis.HasErrorPrefix(err, "NOSCRIPT") && !d.source {
		d.source = true
		return true, nil
	}
	if readOnly(err) && !d.renewed {
		// The master may have moved. The client goes on with new connections.
		d.renewed = true
		d.back()
		return true, nil
	}
	if address, ok := goredis.IsMovedError(err); ok {
		return s.follow(ctx, d, address, false, err)
	}
	if address, ok := goredis.IsAskError(err); ok {
		return s.follow(ctx, d, address, true, err)
	}
	if goredis.IsTryAgainError(err) {
		return s.linger(ctx, d, err)
	}
	return s.lost(ctx, d, err)
}

// follow takes d to the node that has its slot, or is about to get it.
func (s *Store) follow(ctx context.Context, d *delivery, address string, asking bool, err error) (bool, error) {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return false, errNode
	}
	cluster.ReloadState(ctx)
	if strings.HasPrefix(address, unknownHost+":") {
		// Only the table, which is read anew, tells where that is.
		d.back()
		return s.linger(ctx, d, err)
	}
	if d.detours == maxDetours {
		return false, err
	}
	d.detours++
	// The cluster's client does not give away its client for an address. Until it
	// has learnt where the slot is now, a connection for every such call will do.
	client := redirected(d.node, address)
	d.back()
	d.node, d.detour, d.asking = client, true, asking
	return true, nil
}

// linger lets d come back to the same node a little later: of its keys, which are
// in one slot, some have been moved and others not yet.
func (s *Store) linger(ctx context.Context, d *delivery, err error) (bool, error) {
	if d.detours == maxDetours {
		return false, err
	}
	pause := time.NewTimer(detourDelay << d.detours)
	defer pause.Stop()
	d.detours++
	select {
	case <-pause.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// lost lets d go again, to the node that is responsible by then, if it is unknown
// whether it arrived and that does not matter.
func (s *Store) lost(ctx context.Context, d *delivery, err error) (bool, error) {
	if err == nil {
		return false, nil
	}
	cluster, ok := s.client.(*goredis.ClusterClient)
	if _, answered := errors.AsType[goredis.Error](err); ok && !answered {
		// Another node may have taken over.
		cluster.ReloadState(ctx)
	}
	if d.doubt != nil && breaker.IsOpen(err) {
		// The second attempt was not made. What is known comes from the first.
		return false, d.doubt
	}
	if !d.repeatable || d.doubt != nil || !ambiguous(err) || ctx.Err() != nil {
		return false, err
	}
	d.doubt = err
	d.back()
	return true, nil
}

// back ends a detour, if d is on one.
func (d *delivery) back() {
	if d.detour {
		_ = d.node.Close()
	}
	d.node, d.detour, d.asking = nil, false, false
}

// redirected returns a client like node for another address, which the caller
// closes. A server that does not tell its host means that of node.
func redirected(node *goredis.Client, address string) *goredis.Client {
	options := *node.Options()
	i := strings.LastIndexByte(address, ':')
	host, port := strings.Trim(address[:max(i, 0)], "[]"), address[i+1:]
	if host == "" {
		host, _, _ = net.SplitHostPort(options.Addr)
	}
	options.Addr = net.JoinHostPort(host, port)
	options.NodeAddress = ""
	// These options went through a client, which made 0 of -1.
	options.MaxRetries = -1
	options.PoolSize = 1
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return goredis.NewClient(&options)
}
