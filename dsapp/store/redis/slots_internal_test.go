package redis

import (
	"errors"
	"reflect"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// The answer to CLUSTER SLOTS is read in every form in which nodes announce their hosts. Other
// answers are errors.
func TestReadSlots(t *testing.T) {
	t.Parallel()
	asked := slotsHook{"192.0.2.1"}
	for _, tt := range []struct {
		name string
		node any
		want string // address, or "" for an error
	}{
		{"host", []any{"192.0.2.2", int64(6379), "id"}, "192.0.2.2:6379"},
		{"IPv6", []any{"2001:db8::2", int64(6379), "id"}, "[2001:db8::2]:6379"},
		{"no host", []any{nil, int64(6379), "id", map[any]any{}}, "192.0.2.1:6379"},
		{"empty host", []any{"", int64(6379), "id"}, "192.0.2.1:6379"},
		{"no name", []any{"?", int64(6379), "id", map[any]any{"ip": "192.0.2.3"}}, "192.0.2.3:6379"},
		{"no name, RESP2", []any{"?", int64(6379), "id", []any{"hostname", "", "ip", "192.0.2.3"}}, "192.0.2.3:6379"},
		{"no name and no IP address", []any{"?", int64(6379), "id", []any{"ip"}}, ""},
		{"no name and nothing else", []any{"?", int64(6379), "id"}, ""},
		{"no port", []any{"192.0.2.2", "6379", "id"}, ""},
		{"too short", []any{"192.0.2.2"}, ""},
		{"no node", "192.0.2.2", ""},
	} {
		got, err := asked.read([]any{[]any{int64(0), int64(16383), tt.node}})
		if tt.want == "" {
			if !errors.Is(err, errUnexpectedAnswer) {
				t.Errorf("%s: %v, error %v", tt.name, got, err)
			}
			continue
		}
		want := []goredis.ClusterSlot{{Start: 0, End: 16383, Nodes: []goredis.ClusterNode{{ID: "id", Addr: tt.want}}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, error %v", tt.name, got, err)
		}
	}
	for name, answer := range map[string][]any{
		"no range": {"x"}, "short range": {[]any{int64(1)}}, "no numbers": {[]any{"0", "1"}},
	} {
		if got, err := asked.read(answer); !errors.Is(err, errUnexpectedAnswer) {
			t.Errorf("%s: %v, error %v", name, got, err)
		}
	}
}
