package redis

import (
	"context"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// scanSize is about how many keys of a server one SCAN looks at.
const scanSize = 500

// Sealed calls visit with every sealed value on the servers: the parts of registrations and
// handshakes, the owners of requests and the simulation secret. It reads all keys with the
// prefix, a few hundred at a time, while other calls go on; a value that is written or ends
// meanwhile may be left out. The servers' user needs the command scan for it. The error
// wraps activation.ErrUnavailable.
func (s *Store) Sealed(ctx context.Context, visit func(value []byte)) error {
	err := s.forEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := node.Scan(ctx, cursor, s.sealedPattern(), scanSize).Result()
			if err != nil {
				return err
			}
			if err := s.visitSealed(ctx, node, keys, visit); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
	if goredis.HasErrorPrefix(err, "NOPERM") {
		return fmt.Errorf("%w: permit it to the servers' user with +scan", unavailable(err))
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// sealedPattern returns the pattern of the keys with the prefix.
func (s *Store) sealedPattern() string {
	quoted := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(s.prefix)
	return quoted + ":*"
}

// visitSealed calls visit with the sealed values under keys of a server.
func (s *Store) visitSealed(ctx context.Context, node *goredis.Client, keys []string, visit func([]byte)) error {
	pipe := node.Pipeline()
	var decode []func()
	text := func(key string, from int64) {
		value := pipe.GetRange(ctx, key, from, -1)
		decode = append(decode, func() { visit([]byte(value.Val())) })
	}
	fields := func(key string, names []string, sealed func(string) []byte) {
		values := pipe.HMGet(ctx, key, names...)
		decode = append(decode, func() {
			for _, value := range values.Val() {
				if value, ok := value.(string); ok && value != "" {
					visit(sealed(value))
				}
			}
		})
	}
	for _, key := range keys {
		switch name := strings.TrimPrefix(key, s.prefix); {
		case name == ":sim":
			text(key, 0)
		case strings.HasPrefix(name, ":own:"):
			text(key, int64(len(ownership.Token{})))
		case strings.HasPrefix(name, ":{") && strings.HasSuffix(name, "}:reg"):
			fields(key, []string{"f", "v", "d"}, func(value string) []byte { return []byte(value) })
		case strings.HasPrefix(name, ":{") && strings.HasSuffix(name, "}:hs"):
			fields(key, []string{"1", "2", "3", "4"}, func(value string) []byte {
				h, _ := decodeHandshake([]byte(value))
				return h.State
			})
		}
	}
	if len(decode) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for _, d := range decode {
		d()
	}
	return nil
}

// forEachMaster calls do for the server or, in a cluster, for every master, one after the
// other.
func (s *Store) forEachMaster(ctx context.Context, do func(context.Context, *goredis.Client) error) error {
	switch c := s.client.(type) {
	case *goredis.Client:
		return do(ctx, c)
	case *goredis.ClusterClient:
		turn := make(chan struct{}, 1)
		return c.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
			turn <- struct{}{}
			defer func() { <-turn }()
			return do(ctx, node)
		})
	}
	return errUnsupportedClient
}
