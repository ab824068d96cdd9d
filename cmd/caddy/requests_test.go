package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// onEveryStore runs a test with a gateway on each kind of store. The function left returns the
// ownership keys that are left in Redis, and nothing for other stores.
func onEveryStore(t *testing.T, run func(t *testing.T, server *testbed.Server, g *testbed.Gateway, left func() string)) {
	t.Helper()
	invisible := func() string { return "" }
	for name, start := range map[string]func(t *testing.T) (store testbed.Object, left func() string){
		"embedded": func(t *testing.T) (testbed.Object, func() string) {
			return testbed.Object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")}, invisible
		},
		"redis": func(t *testing.T) (testbed.Object, func() string) {
			r := redistest.Start(t)
			return testbed.RedisStore(r.Addr()), func() string {
				return r.Command(t, "KEYS", "dsapp:own:*") + r.Command(t, "KEYS", "dsapp:dev:*")
			}
		},
		"redis cluster": func(t *testing.T) (testbed.Object, func() string) {
			return testbed.Object{"backend": "redis", "cluster": true, "addresses": redistest.StartCluster(t, 0).Addresses()}, invisible
		},
		"redis sentinel": func(t *testing.T) (testbed.Object, func() string) {
			s := redistest.StartSentinel(t, 1)
			// The first confirmation of a replica may take a second.
			return testbed.Object{"backend": "redis", "master_name": redistest.MasterName, "addresses": s.Addresses(), "wait_replicas": 1, "timeout": "5s"}, invisible
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certs := testbed.Certificates(t)
			server := testbed.StartServer(t, certs)
			store, left := start(t)
			g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				testbed.AddOtherApplication(dsapp)
				dsapp["store"] = store
			})
			run(t, server, g, left)
		})
	}
}

// The phone that retrieved a request, and no other application or device, can
// cancel it. A foreign cancel is refused before anything is forwarded.
func TestForeignCancelIsRefusedAtTheEdge(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, server *testbed.Server, g *testbed.Gateway, left func() string) {
		a, b := g.ActivatedDevice(t), g.ActivatedDevice(t)
		require.NotEqual(t, a.SerialNumber, b.SerialNumber)
		for _, s := range testbed.RequestKinds {
			for _, form := range []string{"plain", "wrapped"} {
				t.Run(s.Name+" "+form, func(t *testing.T) {
					key, outcome := testbed.Ask(t, server, s, a)
					g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
					sent := key
					if form == "wrapped" {
						sent = testbed.WrapKey(t, a, key)
					}
					before := server.Calls(s.CancelCommand)

					// Another application on the same device.
					assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, s, testbed.OtherFrontEndKey, a.SerialNumber, sent)))
					if form == "plain" {
						// Another device of the same application.
						assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, b.SerialNumber, sent)))
					}
					assert.Equal(t, before, server.Calls(s.CancelCommand), "nothing was forwarded")

					assert.Equal(t, testbed.Success, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, sent)))
					assert.Equal(t, before+1, server.Calls(s.CancelCommand))
					require.Error(t, outcome(), "the application server learns of the rejection")
					poll.Until(t, "the end of the ownership", func() bool { return left() == "" })
				})
			}
		}
	})
}

// A request is retrieved once, completed by the signature of the device, and then gone.
func TestRequestIsCompleted(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, server *testbed.Server, g *testbed.Gateway, left func() string) {
		a := g.ActivatedDevice(t)
		for _, s := range testbed.RequestKinds {
			t.Run(s.Name, func(t *testing.T) {
				key, outcome := testbed.Ask(t, server, s, a)
				message := g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
				calls := server.Calls(s.RetrieveCommand)
				assert.Equal(t, testbed.NotFound, testbed.Answer(g.Retrieve(t, s, testbed.OtherFrontEndKey, a.SerialNumber, key)))
				assert.Equal(t, calls, server.Calls(s.RetrieveCommand), "known to be retrieved without asking")

				// A wrong signature changes nothing.
				status, answer := g.Complete(t, s, key, "0000000")
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "RET_FAILURE")

				signature, err := a.Sign(message)
				require.NoError(t, err)
				status, answer = g.Complete(t, s, key, signature)
				assert.Equal(t, http.StatusOK, status)
				assert.JSONEq(t, fmt.Sprintf(
					`{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0},
					"result":{"userID":%q,"domain":%q,"orgUnit":"","serialNo":%q}}`, testbed.UserID, testbed.Domain, a.SerialNumber), answer)
				require.NoError(t, outcome())
				poll.Until(t, "the end of the ownership", func() bool { return left() == "" })
			})
		}
	})
}

// The store is a cache of ownership: if it is emptied between retrieval and cancel, the
// authentication server decides, unless requests.unknown is refuse.
func TestOwnershipIsACache(t *testing.T) {
	t.Parallel()
	for _, unknown := range []string{"forward", "refuse"} {
		t.Run(unknown, func(t *testing.T) {
			t.Parallel()
			certs := testbed.Certificates(t)
			server := testbed.StartServer(t, certs)
			redis := redistest.Start(t)
			g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				dsapp["store"] = testbed.RedisStore(redis.Addr())
				dsapp["requests"] = testbed.Object{"unknown": unknown}
			})
			a := g.ActivatedDevice(t)
			for _, s := range testbed.RequestKinds {
				for _, form := range []string{"plain", "wrapped"} {
					key, outcome := testbed.Ask(t, server, s, a)
					g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
					redis.FlushAll(t)
					sent := key
					if form == "wrapped" {
						sent = testbed.WrapKey(t, a, key)
					}
					before := server.Calls(s.CancelCommand)
					status, answer := g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, sent)
					assert.Equal(t, http.StatusOK, status)
					if unknown == "refuse" {
						assert.Equal(t, testbed.NoSupport, answer)
						assert.Equal(t, before, server.Calls(s.CancelCommand))
						continue
					}
					assert.Equal(t, testbed.Success, answer)
					assert.Equal(t, before+1, server.Calls(s.CancelCommand))
					require.Error(t, outcome())
				}
			}
		})
	}
}

// Two gateways on one Redis server behave as one: a request that was retrieved through the
// first is cancelled and completed through the second, on the authentication server that has
// it.
func TestNodesBehaveAsOne(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, _ := testbed.StartNodes(t, 2, nil)
	first, second := gateways[0], gateways[1]
	// Registered through one node, completed through the other.
	a := second.ActivatedDevice(t)
	for _, s := range testbed.RequestKinds {
		for _, server := range []*testbed.Server{primary, backup} {
			other := primary
			if server == primary {
				other = backup
			}
			t.Run(fmt.Sprintf("%s on backup %t", s.Name, server == backup), func(t *testing.T) {
				for _, form := range []string{"plain", "wrapped"} {
					key, outcome := testbed.Ask(t, server, s, a)
					first.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
					sent := key
					if form == "wrapped" {
						sent = testbed.WrapKey(t, a, key)
					}
					before := other.Calls(s.CancelCommand)
					_, answer := second.Cancel(t, s, testbed.OtherFrontEndKey, a.SerialNumber, sent)
					assert.Equal(t, testbed.NoSupport, answer)
					assert.Equal(t, testbed.Success, testbed.Answer(second.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, sent)))
					assert.Equal(t, before, other.Calls(s.CancelCommand), "the other instance is not asked")
					require.Error(t, outcome())
				}

				key, outcome := testbed.Ask(t, server, s, a)
				message := first.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
				signature, err := a.Sign(message)
				require.NoError(t, err)
				before := other.Calls(s.CompleteCommand)
				status, answer := second.Complete(t, s, key, signature)
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "STAT_SUCCESS")
				require.NoError(t, outcome())
				assert.Equal(t, before, other.Calls(s.CompleteCommand))
			})
		}
	}
}

// Of many concurrent retrievals of one key through several nodes exactly one succeeds.
func TestOneRetrievalWins(t *testing.T) {
	t.Parallel()
	gateways, primary, _, _ := testbed.StartNodes(t, 2, nil)
	a := gateways[0].ActivatedDevice(t)
	const calls = 256
	for _, s := range testbed.RequestKinds {
		key, _ := testbed.Ask(t, primary, s, a)
		answers := make([]string, calls)
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				apiKey := []string{testbed.FrontEndKey, testbed.OtherFrontEndKey}[i/2%2]
				status, answer, err := gateways[i%2].Try(t.Context(), s.RetrievePath, apiKey,
					fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.KeyMember, key))
				if err != nil || status != http.StatusOK {
					answer = fmt.Sprintf("status %d, error %v, %s", status, err, answer)
				}
				answers[i] = answer
			})
		}
		wg.Wait()
		won := map[string]bool{} // applications, with the answer
		for i, answer := range answers {
			if answer != testbed.NotFound {
				won[fmt.Sprint(i/2%2)+answer] = true
				assert.Contains(t, answer, "STAT_SUCCESS")
			}
		}
		assert.Len(t, won, 1, s.Name)
	}
}

// The gateway says that a request does not exist only if every instance said so. A request
// whose instance is known is looked for only there.
func TestInstanceDown(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, _ := testbed.StartNodes(t, 1, nil)
	g := gateways[0]
	a := g.ActivatedDevice(t)
	type pending struct {
		testbed.RequestKind
		retrieved, waiting, message string
	}
	var all []pending
	for _, s := range testbed.RequestKinds {
		p := pending{RequestKind: s}
		p.retrieved, _ = testbed.Ask(t, backup, s, a)
		p.waiting, _ = testbed.Ask(t, backup, s, a)
		p.message = g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, p.retrieved)
		all = append(all, p)

		_, answer := g.Retrieve(t, s, testbed.FrontEndKey, a.SerialNumber, "0000000000")
		assert.Equal(t, testbed.NotFound, answer, "both instances say so")
	}
	backup.Stop()

	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			unavailable := func(status int, answer string) {
				t.Helper()
				assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				assert.Contains(t, answer, "STAT_COMMS")
			}
			unavailable(g.Retrieve(t, p.RequestKind, testbed.FrontEndKey, a.SerialNumber, p.waiting))
			assert.Equal(t, 3, primary.Calls(p.RetrieveCommand))

			completes, cancels := primary.Calls(p.CompleteCommand), primary.Calls(p.CancelCommand)
			signature, err := a.Sign(p.message)
			require.NoError(t, err)
			unavailable(g.Complete(t, p.RequestKind, p.retrieved, signature))
			unavailable(g.Cancel(t, p.RequestKind, testbed.FrontEndKey, a.SerialNumber, p.retrieved))
			unavailable(g.Cancel(t, p.RequestKind, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, p.retrieved)))
			assert.Equal(t, completes, primary.Calls(p.CompleteCommand), "the other instance is not asked")
			assert.Equal(t, cancels, primary.Calls(p.CancelCommand), "the other instance is not asked")

			// Requests on the other instance go on.
			key, outcome := testbed.Ask(t, primary, p.RequestKind, a)
			message := g.MustRetrieve(t, p.RequestKind, testbed.FrontEndKey, a.SerialNumber, key)
			signature, err = a.Sign(message)
			require.NoError(t, err)
			_, answer := g.Complete(t, p.RequestKind, key, signature)
			assert.Contains(t, answer, "STAT_SUCCESS")
			require.NoError(t, outcome())
		})
	}
}

// Without the store, everything goes on that the authentication servers decide. What only the
// store knows is refused as an outage, and nothing is denied that another instance may have.
func TestRequestsWithoutStore(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, redis := testbed.StartNodes(t, 1, nil)
	g := gateways[0]
	a := g.ActivatedDevice(t)
	redis.Stop()
	_, err := g.Phone().Authenticate(t.Context(), a)
	require.NoError(t, err)
	for _, s := range testbed.RequestKinds {
		for _, server := range []*testbed.Server{primary, backup} {
			t.Run(fmt.Sprintf("%s on backup %t", s.Name, server == backup), func(t *testing.T) {
				key, outcome := testbed.Ask(t, server, s, a)
				message := g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)

				before := server.Calls(s.CancelCommand)
				for _, apiKey := range []string{testbed.FrontEndKey, testbed.OtherFrontEndKey} {
					status, answer := g.Cancel(t, s, apiKey, a.SerialNumber, key)
					assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				}
				assert.Equal(t, before, server.Calls(s.CancelCommand), "a plain key proves nothing")

				signature, err := a.Sign(message)
				require.NoError(t, err)
				status, answer := g.Complete(t, s, key, signature)
				if server == primary {
					assert.Equal(t, http.StatusOK, status, answer)
					assert.Contains(t, answer, "STAT_SUCCESS")
					require.NoError(t, outcome())
					return
				}
				assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				assert.Equal(t, testbed.Success, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, key))))
				require.Error(t, outcome())
			})
		}
	}
}

// Requests that the phone scans, one-time passwords and the deprecated services behave the
// same.
func TestOtherServices(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, nil)
	a := g.ActivatedDevice(t)

	t.Run("one-time password", func(t *testing.T) {
		for _, version := range []int{1, 2} {
			phone := g.Phone()
			phone.Version = version
			done, err := phone.Authenticate(t.Context(), a)
			require.NoError(t, err)
			if version == 2 {
				assert.Equal(t, sandbox.AuthenticatedUser{UserID: testbed.UserID, Domain: testbed.Domain, SerialNumber: a.SerialNumber}, done)
			}
		}
		status, answer := g.Call(t, "/rest/v2/authentication/authUser", testbed.FrontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":"000000"}`, testbed.UserID, testbed.Domain))
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, answer, "STAT_OTP_INCORRECT", "the status of the authentication server is relayed")
	})

	t.Run("scan", func(t *testing.T) {
		phone, application := g.Phone(), server.Application()
		phone.Scan = true
		for _, kind := range []sandbox.Kind{sandbox.KindLogin, sandbox.KindSignature} {
			var key string
			var err error
			answered := make(chan error, 1)
			if kind == sandbox.KindLogin {
				key, err = application.PrepareLogin(t.Context(), sandbox.LoginRequest{UserID: testbed.UserID, Domain: testbed.Domain, Message: "Sign in?"})
				require.NoError(t, err)
				go func() {
					_, err := application.RequestLogin(t.Context(), sandbox.LoginRequest{UserID: testbed.UserID, Domain: testbed.Domain, Key: key})
					answered <- err
				}()
			} else {
				key, err = application.PrepareSignature(t.Context(), sandbox.SignatureRequest{UserID: testbed.UserID, Domain: testbed.Domain, SerialNumber: a.SerialNumber, Title: "Transfer", Fields: []sandbox.RequestField{{Key: "Amount", Value: "1"}}})
				require.NoError(t, err)
				go func() {
					_, err := application.RequestSignature(t.Context(), sandbox.SignatureRequest{UserID: testbed.UserID, Domain: testbed.Domain, Key: key})
					answered <- err
				}()
			}
			// The bank's call finds no request that was completed before it.
			poll.Until(t, "the bank's call", func() bool {
				return slices.ContainsFunc(server.State().Requests, func(r sandbox.RequestState) bool { return r.Key == key && r.Awaited })
			})
			pending, err := phone.Retrieve(t.Context(), kind, a, key)
			require.NoError(t, err, kind)
			_, err = phone.Complete(t.Context(), kind, a, pending)
			require.NoError(t, err, kind)
			require.NoError(t, poll.Receive(t, "the answer to the bank", answered), kind)
		}
	})

	t.Run("version 1", func(t *testing.T) {
		phone := g.Phone()
		phone.Version = 1
		require.NoError(t, phone.UpdateNotificationID(t.Context(), a, "a new push ID"))
		key, outcome := testbed.Ask(t, server, testbed.Login, a)
		pending, err := phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
		require.NoError(t, err)
		_, err = phone.Complete(t.Context(), sandbox.KindLogin, a, pending)
		require.NoError(t, err)
		require.NoError(t, outcome())

		key, outcome = testbed.Ask(t, server, testbed.Login, a)
		_, err = phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
		require.NoError(t, err)
		require.NoError(t, phone.Cancel(t.Context(), sandbox.KindLogin, a, key, true))
		require.Error(t, outcome())
	})
}
