package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// A gateway that may use nothing but what FIPS 140-3 approves (GODEBUG=fips140=only) activates
// devices with either store. It goes on with what was stored before that mode was switched on,
// and a gateway without it with what was stored in it.
func TestFIPSOnly(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t)
	for name, store := range map[string]testbed.Object{"embedded": nil, "redis": testbed.RedisStore(redis.Addr())} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
				if store != nil {
					dsapp["store"] = store
				}
			})
			var waiting string
			var password string
			for _, mode := range []string{"off", "only", "off"} {
				g.Env = []string{"GODEBUG=fips140=" + mode}
				g.Start(t)
				awaitHealth(t, g, http.StatusOK, "ready")
				if waiting != "" {
					_, err := g.Phone().Activate(t.Context(), waiting, password)
					require.NoError(t, err, "a registration from before fips140=%s", mode)
				}
				g.ActivatedDevice(t)
				registered := g.Register(t)
				waiting, password = registered.Identifier, registered.Password
				g.Kill(t)
			}
			assert.NotContains(t, g.Logs.String(), "record_unopened")
			assert.NotContains(t, g.Logs.String(), `"panic`)
		})
	}
}
