package redis

import (
	"context"
	"fmt"
	"net"
	"strconv"

	goredis "github.com/redis/go-redis/v9"
)

// slotsHook is a hook of the client of a cluster's node. It reads the answer to CLUSTER
// SLOTS. In it, nodes of Redis 7 may be listed without a host, which go-redis treats as an
// error. See https://redis.io/docs/latest/commands/cluster-slots/.
type slotsHook struct {
	host string // host of the node that is asked
}

// newNode returns the client of a node of a cluster.
func newNode(o *goredis.Options) *goredis.Client {
	c := newServer(o)
	if host, _, err := net.SplitHostPort(o.Addr); err == nil {
		c.AddHook(slotsHook{host})
	}
	return c
}

// DialHook changes nothing.
func (slotsHook) DialHook(next goredis.DialHook) goredis.DialHook { return next }

// ProcessPipelineHook changes nothing.
func (slotsHook) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// ProcessHook sends CLUSTER SLOTS and reads its answer.
func (t slotsHook) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		table, ok := cmd.(*goredis.ClusterSlotsCmd)
		if !ok {
			return next(ctx, cmd)
		}
		answer := goredis.NewSliceCmd(ctx, cmd.Args()...)
		err := next(ctx, answer)
		if err == nil {
			var slots []goredis.ClusterSlot
			slots, err = t.read(answer.Val())
			table.SetVal(slots)
		}
		table.SetErr(err)
		return err
	}
}

// read reads the ranges of slots in an answer, each with its nodes, the master first.
func (t slotsHook) read(ranges []any) ([]goredis.ClusterSlot, error) {
	slots := make([]goredis.ClusterSlot, len(ranges))
	for i, r := range ranges {
		parts, _ := r.([]any)
		if len(parts) < 2 {
			return nil, fmt.Errorf("%w: a range of slots of %d parts", errUnexpectedAnswer, len(parts))
		}
		first, ok := parts[0].(int64)
		last, ok2 := parts[1].(int64)
		if !ok || !ok2 {
			return nil, fmt.Errorf("%w: a range of slots without numbers", errUnexpectedAnswer)
		}
		nodes := make([]goredis.ClusterNode, len(parts)-2)
		for j, part := range parts[2:] {
			var err error
			if nodes[j], err = t.node(part); err != nil {
				return nil, err
			}
		}
		slots[i] = goredis.ClusterSlot{Start: int(first), End: int(last), Nodes: nodes}
	}
	return slots, nil
}

// node reads one node of a range: host, port, ID and metadata. An empty host means the host
// of the node that is asked. If the host is unknownHost, the metadata has the IP address.
func (t slotsHook) node(part any) (goredis.ClusterNode, error) {
	parts, _ := part.([]any)
	if len(parts) < 2 {
		return goredis.ClusterNode{}, fmt.Errorf("%w: a node of %d parts", errUnexpectedAnswer, len(parts))
	}
	host, _ := parts[0].(string)
	if host == unknownHost && len(parts) > 3 {
		host = address(parts[3])
	}
	if host == "" {
		host = t.host
	}
	port, ok := parts[1].(int64)
	if !ok || host == unknownHost {
		return goredis.ClusterNode{}, fmt.Errorf("%w: a node without an address", errUnexpectedAnswer)
	}
	node := goredis.ClusterNode{Addr: net.JoinHostPort(host, strconv.FormatInt(port, 10))}
	if len(parts) > 2 {
		node.ID, _ = parts[2].(string)
	}
	return node, nil
}

// unknownHost is the host of a node that is configured to announce a host name and has none.
const unknownHost = "?"

// address returns the IP address in the metadata of a node, or unknownHost. RESP3 has the
// metadata in a map, RESP2 in a list.
func address(metadata any) string {
	switch m := metadata.(type) {
	case map[any]any:
		ip, _ := m["ip"].(string)
		return ip
	case []any:
		for i := 0; i+1 < len(m); i += 2 {
			if m[i] == "ip" {
				ip, _ := m[i+1].(string)
				return ip
			}
		}
	}
	return unknownHost
}

var _ goredis.Hook = slotsHook{}
