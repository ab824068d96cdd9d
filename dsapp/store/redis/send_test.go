package redis

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A client for another node has the settings of the first one, and repeats nothing either.
func TestClientFor(t *testing.T) {
	t.Parallel()
	client, err := NewClient(Settings{
		Addresses: []string{"10.0.0.1:6379"}, Username: "user", Password: "password",
		DialTimeout: 7 * time.Second, Timeout: 8 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	for address, want := range map[string]string{
		"10.0.0.2:7001": "10.0.0.2:7001",
		"node-2:7001":   "node-2:7001",
		"::1:7001":      "[::1]:7001",
		"[::1]:7001":    "[::1]:7001",
		":7001":         "10.0.0.1:7001",
	} {
		node := client.(*goredis.Client)
		got := clientFor(node, address)
		o := got.Options()
		if o.Addr != want {
			t.Errorf("%q leads to %q, want %q", address, o.Addr, want)
		}
		if o.Username != "user" || o.Password != "password" || o.DialTimeout != node.Options().DialTimeout || o.ReadTimeout != 8*time.Second ||
			!o.ContextTimeoutEnabled || o.MaxRetries != 0 {
			t.Errorf("%q: other settings", address)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}
