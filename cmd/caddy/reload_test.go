package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// Fifty reloads under HTTP/2 load lose no request and no pending registration:
// not with an unchanged configuration, not with changed keys, limits and
// transports, and not when a configuration is rejected in between.
func TestReloadsLoseNothing(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	stores := map[string]func(t *testing.T) object{
		"embedded": nil,
		"redis": func(t *testing.T) object {
			return object{"backend": "redis", "addresses": []string{redistest.Start(t).Addr()}}
		},
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startOAS(t, certs)
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				if store != nil {
					dsapp["store"] = store(t)
				}
			})
			connections := &redialing{RoundTripper: g.client.Transport}
			g.client.Transport = connections
			const reloads, pendingCount, workers = 50, 10, 4
			var pending []registration
			for range pendingCount {
				pending = append(pending, g.Register(t))
			}

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var answered, failed atomic.Int64
			var wg sync.WaitGroup
			fail := func(format string, arguments ...any) {
				if failed.Add(1) < 10 {
					t.Errorf(format, arguments...)
				}
			}
			for worker := range workers {
				wg.Go(func() {
					for ctx.Err() == nil {
						if worker == 0 {
							// A whole activation across the reloads.
							registered := g.Register(t)
							if _, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password); err != nil {
								fail("activation: %v", err)
							}
							answered.Add(5)
							continue
						}
						status, answer, err := g.try(t.Context(), ephemeralKeyPath, frontEndKey,
							fmt.Sprintf(`{"registrationIdentifier":"Unknown%d","clientEphemeralPublicKey":"05"}`, worker))
						if err != nil || status != http.StatusOK {
							fail("status %d, answer %s, error %v", status, answer, err)
						}
						answered.Add(1)
					}
				})
			}

			dsapp := g.Config["apps"].(object)["dsapp"].(object)
			for i := range reloads {
				// The load goes on for a while with each configuration.
				seen := answered.Load()
				poll(t, "requests between two reloads", func() bool { return answered.Load() >= seen+20 || failed.Load() > 0 })
				switch i % 5 {
				case 0: // unchanged
				case 1:
					dsapp["api_keys"] = append(dsapp["api_keys"].([]object), object{
						"name": "mobile-app", "class": "front_end", "key": fmt.Sprintf("another-front-end-key-%d", i),
					})
				case 2:
					dsapp["activation"] = object{"max_attempts": 3 + i%2, "gateway_id": fmt.Sprintf("GATEWAY%d", i)}
				case 3:
					dsapp["authentication_servers"].(object)["timeout"] = fmt.Sprintf("%ds", 5+i%3)
				case 4:
					unknown := dsapp["activation"]
					dsapp["activation"] = object{"profile": "no-such-profile"}
					status, body := g.load(t)
					assert.Equal(t, http.StatusBadRequest, status, body)
					dsapp["activation"] = unknown
					continue
				}
				g.Load(t)
			}
			stop()
			wg.Wait()
			assert.Zero(t, failed.Load(), "failed of %d", answered.Load())
			t.Logf("%d requests answered over %d reloads, %d connections made again", answered.Load(), reloads, connections.again.Load())

			for _, registered := range pending {
				_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
				require.NoError(t, err)
			}
		})
	}
}

// redialing makes a connection again that failed before there was one to send
// a request on. The kernel resets connections that wait in the queue of a socket
// when that is closed, be it by Caddy or anything else: no server has seen these.
type redialing struct {
	http.RoundTripper
	again atomic.Int64
}

func (r *redialing) RoundTrip(request *http.Request) (*http.Response, error) {
	for {
		var connected atomic.Bool
		traced := request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
		}))
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, err
			}
			traced.Body = body
		}
		resp, err := r.RoundTripper.RoundTrip(traced)
		if err == nil || connected.Load() || request.Context().Err() != nil || r.again.Add(1) > 100 {
			return resp, err
		}
	}
}
