package caddymodule

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
)

// What a Redis server tells about itself is compared with what the gateway needs. A sound
// server has no finding.
func TestServerInfo(t *testing.T) {
	t.Parallel()
	sound := redis.ServerInfo{Version: "7.0.15", Role: "master", Policy: "noeviction", UsedMemory: 1 << 20, Replicas: 1}
	for name, tt := range map[string]struct {
		edit func(s *RedisStore, i *redis.ServerInfo)
		want string
	}{
		"sound":          {func(*RedisStore, *redis.ServerInfo) {}, ""},
		"limit":          {func(_ *RedisStore, i *redis.ServerInfo) { i.MaxMemory = 1 << 30 }, ""},
		"version 6":      {func(_ *RedisStore, i *redis.ServerInfo) { i.Version = "6.0.16" }, ""},
		"version 5":      {func(_ *RedisStore, i *redis.ServerInfo) { i.Version = "5.0.14" }, "the version is 5.0.14: install version 6 or later"},
		"old cluster":    {func(s *RedisStore, i *redis.ServerInfo) { s.Cluster, i.Version = true, "6.2.1" }, "install version 7 or later"},
		"replica":        {func(_ *RedisStore, i *redis.ServerInfo) { i.Role = "slave" }, "name the master"},
		"policy":         {func(_ *RedisStore, i *redis.ServerInfo) { i.Policy = "volatile-lru" }, "set it to noeviction"},
		"room":           {func(_ *RedisStore, i *redis.ServerInfo) { i.MaxMemory = 2 << 20 }, "1 MiB of maxmemory are free"},
		"over the limit": {func(_ *RedisStore, i *redis.ServerInfo) { i.MaxMemory = 1 << 10 }, "0 MiB of maxmemory are free"},
		"replicas":       {func(s *RedisStore, _ *redis.ServerInfo) { s.WaitReplicas = 2 }, "1 replicas are connected and `wait_replicas` is 2"},
		"denied":         {func(_ *RedisStore, i *redis.ServerInfo) { *i = redis.ServerInfo{Denied: true} }, "permit +info"},
	} {
		s, info := new(RedisStore), sound
		tt.edit(s, &info)
		var f findings
		s.checkInfo(info, &f)
		if tt.want == "" {
			assert.Empty(t, f.all, name)
			continue
		}
		if assert.Len(t, f.all, 1, name) {
			assert.Contains(t, f.all[0].Problem, tt.want)
			assert.Equal(t, name == "denied", f.all[0].Note)
		}
	}
}

// Findings come in the order of the checks, notes last, and each is one line.
func TestFindingsAreSorted(t *testing.T) {
	t.Parallel()
	var f findings
	f.note("dns", "a", "one\n two")
	f.add("system", "b", "%v", errors.New("x"))
	f.add("dns", "c", "y")
	f.add("dns", "a", "z")
	assert.Equal(t, []Finding{
		{Check: "dns", Subject: "a", Problem: "z"},
		{Check: "dns", Subject: "c", Problem: "y"},
		{Check: "system", Subject: "b", Problem: "x"},
		{Check: "dns", Subject: "a", Problem: "one two", Note: true},
	}, f.sorted())
}
