package redis

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

// ServerInfo is what a server tells about itself.
type ServerInfo struct {
	Address string
	// Version is that of Redis, such as 7.0.15.
	Version string
	// Role is master or slave.
	Role string
	// Policy is maxmemory-policy. MaxMemory is 0 if there is no limit. Both memories are in
	// bytes.
	Policy                string
	UsedMemory, MaxMemory int64
	// Replicas is the number of connected replicas.
	Replicas int
	// Denied says that the user may not run the command info. Then only Address is known.
	Denied bool
}

// Info asks the server or, in a cluster, every master about itself, in the order of their
// addresses. The user needs the command info. The error wraps activation.ErrUnavailable.
func (s *Store) Info(ctx context.Context) ([]ServerInfo, error) {
	var mu sync.Mutex
	var all []ServerInfo
	err := s.forEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
		text, err := node.Info(ctx).Result()
		denied := goredis.HasErrorPrefix(err, "NOPERM")
		if err != nil && !denied {
			return err
		}
		info := parseInfo(text)
		info.Address, info.Denied = node.Options().Addr, denied
		mu.Lock()
		defer mu.Unlock()
		all = append(all, info)
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	slices.SortFunc(all, func(a, b ServerInfo) int { return cmp.Compare(a.Address, b.Address) })
	return all, nil
}

func parseInfo(text string) (i ServerInfo) {
	number := func(value string) int64 {
		n, _ := strconv.ParseInt(value, 10, 64)
		return n
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "redis_version":
			i.Version = value
		case "role":
			i.Role = value
		case "maxmemory_policy":
			i.Policy = value
		case "used_memory":
			i.UsedMemory = number(value)
		case "maxmemory":
			i.MaxMemory = number(value)
		case "connected_slaves":
			i.Replicas = int(number(value))
		}
	}
	return i
}
