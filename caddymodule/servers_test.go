package caddymodule

import (
	"log/slog"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Configurations that name the same authentication server share what it is busy
// with, so that a reload does not double its limit; a configuration that fails
// gives back what it took, and nothing is left after the last one.
func TestInstancesShareTheirLoad(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	const address = "https://load.example.com:8888/"
	open := func(extra ...Instance) (*AuthenticationServers, error) {
		s := &AuthenticationServers{Instances: append([]Instance{{Name: "primary", URL: address}}, extra...)}
		_, err := s.open(ctx, slog.New(slog.DiscardHandler))
		return s, err
	}
	references := func() int {
		n, _ := loadPool.References(address)
		return n
	}

	first, err := open()
	require.NoError(t, err)
	second, err := open(Instance{Name: "same", URL: address})
	require.NoError(t, err)
	assert.Equal(t, 3, references())

	failed, err := open(Instance{Name: "backup", URL: "http://not-https.example.com/"})
	require.Error(t, err)
	failed.close()
	assert.Equal(t, 3, references())

	first.close()
	first.close()
	assert.Equal(t, 2, references())
	second.close()
	assert.Zero(t, references())
}
