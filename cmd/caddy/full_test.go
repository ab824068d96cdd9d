package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// limitedStore is a store that something else can fill up.
type limitedStore struct {
	config testbed.Object
	// fill fills the store up and keeps it full until stop is called.
	fill func() (stop func())
}

var limitedStores = map[string]func(t *testing.T) limitedStore{
	"disk": func(t *testing.T) limitedStore {
		folder := namespace.SmallDisk(t, 16<<20)
		return limitedStore{
			config: testbed.Object{"backend": "embedded", "path": filepath.Join(folder, "dsapp.db")},
			fill:   func() func() { return fillDisk(t, filepath.Join(folder, "other")) },
		}
	},
	"redis": func(t *testing.T) limitedStore {
		r := redistest.Start(t)
		return limitedStore{config: testbed.RedisStore(r.Addr()), fill: func() func() { return r.Fill(t, 4096, 1024) }}
	},
	"cluster": func(t *testing.T) limitedStore {
		c := redistest.StartCluster(t, 0)
		return limitedStore{config: testbed.ClusterStore(c), fill: func() func() { return c.Masters[1].Fill(t, 4096, 1024) }}
	},
}

// fillDisk writes to a file until the disk is full, and goes on until stop is called, which
// empties the file.
func fillDisk(t *testing.T, name string) (stop func()) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	full, stopped := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		once := sync.OnceFunc(func() { close(full) })
		defer once()
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if _, err := file.Write(make([]byte, 4096)); errors.Is(err, syscall.ENOSPC) {
				once()
			} else if err != nil {
				assert.NoError(t, err)
				return
			}
		}
	})
	<-full
	stop = sync.OnceFunc(func() {
		close(stopped)
		writer.Wait()
		assert.NoError(t, file.Truncate(0))
		assert.NoError(t, file.Close())
	})
	t.Cleanup(stop)
	return stop
}

// A store that fills up wastes no licence: each registration that the authentication server
// makes is answered with success, and all others are refused with 503 before the server is
// asked. That holds for every kind of registration and for many at the same time. When there is
// room again, registrations go on.
func TestFullStore(t *testing.T) {
	t.Parallel()
	const parallel, late = 8, 10
	user := fmt.Sprintf(`"userID":%q,"domain":%q`, testbed.UserID, testbed.Domain)
	kinds := map[string][]struct{ path, body string }{
		"gateway": {
			{testbed.RegisterPath, fmt.Sprintf(`{%s,"staticPassword":%q}`, user, testbed.StaticPassword)},
			{testbed.RegisterPath, fmt.Sprintf(`{%s,"staticPassword":%q,"licenseType":"standard"}`, user, testbed.StaticPassword)},
			{testbed.OfflinePath, fmt.Sprintf(`{%s,"password":%q}`, user, testbed.StaticPassword)},
		},
		"relay": {
			{testbed.RegisterPath, fmt.Sprintf(`{%s,"staticPassword":%q}`, user, testbed.StaticPassword)},
			{testbed.OfflinePath, fmt.Sprintf(`{%s,"password":%q}`, user, testbed.StaticPassword)},
		},
	}
	for name, start := range limitedStores {
		for exchange, kinds := range kinds {
			t.Run(name+" "+exchange, func(t *testing.T) {
				if name == "disk" && !namespace.Inside() {
					t.Skip("no mount namespace")
				}
				t.Parallel()
				certs := testbed.Certificates(t)
				server := testbed.Serve(t, certs, sandbox.New(sandbox.Options{Users: []sandbox.User{
					{Name: testbed.UserID, Domain: testbed.Domain, StaticPassword: testbed.StaticPassword, Licenses: 100_000, StandardLicenses: 100_000},
				}}))
				store := start(t)
				g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
					dsapp["store"] = store.config
					dsapp["activation"] = testbed.Object{"exchange": exchange}
				})
				var made atomic.Int64
				register := func(kind int) int {
					k := kinds[kind%len(kinds)]
					r := g.Post(t, k.path, testbed.BackEndKey, k.body)
					switch r.Status {
					case http.StatusOK:
						assert.Contains(t, r.Body, answerSuccess)
						made.Add(1)
					case http.StatusServiceUnavailable:
						assert.NotEmpty(t, r.Header.Get("Retry-After"))
					default:
						assert.Fail(t, "a registration was lost", "%s: status %d, %s", k.path, r.Status, r.Body)
					}
					return r.Status
				}
				register(0)
				full := make(chan struct{})
				var clients sync.WaitGroup
				for client := range parallel {
					clients.Go(func() {
						for i, refused := client, 0; refused < late; i++ {
							status := register(i)
							select {
							case <-full:
								if status != http.StatusOK {
									refused++
								}
							default:
							}
						}
					})
				}
				stop := store.fill()
				close(full)
				clients.Wait()
				stop()
				for kind := range kinds {
					assert.Equal(t, http.StatusOK, register(kind), "there is room again")
				}
				assert.EqualValues(t, made.Load(),
					server.Calls("PROVISIONCMD_MDL_REGISTER")+server.Calls("PROVISIONCMD_REGISTER")+server.Calls("dsappSRPRegister"),
					"every licence that was used up belongs to a registration")
				assert.NotContains(t, g.Logs.String(), "registration_lost")
				assert.NotContains(t, g.Logs.String(), "could not be kept")
			})
		}
	}
}
