package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// TestCollector guards that a gateway has the garbage collector run less often, unless the
// operator has chosen how often.
func TestCollector(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ env, want string }{
		{"", "go_gc_gogc_percent 400\n"},
		{"GOGC=100", "go_gc_gogc_percent 100\n"},
		{"GOGC=50", "go_gc_gogc_percent 50\n"},
	} {
		certs := testbed.Certificates(t)
		g := testbed.Configure(t, certs, "https://localhost:1", nil)
		if test.env != "" {
			g.Env = []string{test.env}
		}
		g.Start(t)
		metrics, err := g.AskAdmin(t.Context(), "/metrics")
		require.NoError(t, err)
		assert.Contains(t, metrics, test.want, test.env)
	}
}
