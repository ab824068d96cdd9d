package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// otherFrontEndKey is that of another application on the same phones.
const otherFrontEndKey = "another-application-key"

const (
	success   = `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}}`
	notFound  = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_NOT_FOUND","returnCode":-1,"statusCode":-13}}`
	noSupport = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_NOSUPPORT","returnCode":-1,"statusCode":-1}}`
)

// services are those of one kind of pending requests.
type services struct {
	kind                       string
	key                        string // name of the member that carries the key
	retrieve, complete, cancel string // paths
	// Commands of the authentication server.
	retrieveCommand, completeCommand, cancelCommand string
}

var kinds = []services{
	{
		"login", "challengeKey",
		"/rest/v2/authentication/push/getPreparedSecureChallenge", "/rest/v2/authentication/push/authUser", "/rest/v2/authentication/push/cancelAuthUser",
		"getPreparedSecureChallenge", "authUser", "cancelAuthUser",
	},
	{
		"signature", "requestKey",
		"/rest/v2/signature/push/getPreparedSignatureRequest", "/rest/v2/signature/push/authSignature", "/rest/v2/signature/push/cancelAuthSignatureRequest",
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest",
	},
}

// withOtherApplication adds the key of another application.
func withOtherApplication(dsapp object) {
	dsapp["api_keys"] = append(dsapp["api_keys"].([]object), object{"name": "other-app", "class": "front_end", "key": otherFrontEndKey})
}

// ask has the bank's application server ask a user for a login or signature. It
// returns the key that was pushed to the device and how to wait for the outcome.
func ask(t *testing.T, o *oas, s services, a *sandbox.Authenticator) (key string, outcome func() error) {
	t.Helper()
	known := make(map[string]bool)
	for _, push := range o.Pushes(a.SerialNumber) {
		known[push.Key] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	application := o.Application()
	answered := make(chan error, 1)
	go func() {
		var err error
		if s.kind == "login" {
			_, err = application.RequestLogin(ctx, sandbox.LoginRequest{UserID: userID, Domain: domain, SerialNumber: a.SerialNumber, Message: "Sign in?"})
		} else {
			_, err = application.RequestSignature(ctx, sandbox.SignatureRequest{
				UserID: userID, Domain: domain, SerialNumber: a.SerialNumber, Title: "Transfer",
				Fields: []sandbox.RequestField{{Key: "Amount", Value: "100.00"}},
			})
		}
		answered <- err
	}()
	t.Cleanup(cancel)
	poll(t, "the push", func() bool {
		for _, push := range o.Pushes(a.SerialNumber) {
			if !known[push.Key] {
				key = push.Key
				return true
			}
		}
		return false
	})
	return key, func() error {
		select {
		case err := <-answered:
			return err
		case <-time.After(deadline):
			return context.DeadlineExceeded
		}
	}
}

// retrieve calls the retrieval service for a device.
func (g *gateway) retrieve(t *testing.T, s services, apiKey, serialNumber, key string) (int, string) {
	t.Helper()
	return g.Call(t, s.retrieve, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, serialNumber, s.key, key))
}

// retrieved is retrieve for a request that must be there.
func (g *gateway) retrieved(t *testing.T, s services, apiKey, serialNumber, key string) string {
	t.Helper()
	status, answer := g.retrieve(t, s, apiKey, serialNumber, key)
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct {
		Result struct{ RequestMessage string }
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	require.NotEmpty(t, decoded.Result.RequestMessage, answer)
	return decoded.Result.RequestMessage
}

func (g *gateway) cancel(t *testing.T, s services, apiKey, serialNumber, key string) (int, string) {
	t.Helper()
	return g.Call(t, s.cancel, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, serialNumber, s.key, key))
}

func (g *gateway) complete(t *testing.T, s services, key, signature string) (int, string) {
	t.Helper()
	return g.Call(t, s.complete, frontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:%q,"signature":%q}`, userID, domain, s.key, key, signature))
}

// activated gives a device that was activated through the gateway and told its
// notification ID.
func (g *gateway) activated(t *testing.T) *sandbox.Authenticator {
	t.Helper()
	registered := g.Register(t)
	activated, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
	require.NoError(t, g.Phone().UpdateNotificationID(t.Context(), activated.Authenticator, "push-"+activated.InstanceSerial))
	return activated.Authenticator
}

func wrap(t *testing.T, a *sandbox.Authenticator, key string) string {
	t.Helper()
	message, err := a.WrapKey(key)
	require.NoError(t, err)
	return message
}

// onEveryStore runs a test with a gateway on each of the stores. The function
// left lists the ownership keys that are left, where they can be seen from outside.
func onEveryStore(t *testing.T, run func(t *testing.T, server *oas, g *gateway, left func() string)) {
	t.Helper()
	invisible := func() string { return "" }
	for name, start := range map[string]func(t *testing.T) (store object, left func() string){
		"embedded": func(t *testing.T) (object, func() string) {
			t.Helper()
			return object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")}, invisible
		},
		"redis": func(t *testing.T) (object, func() string) {
			t.Helper()
			r := redistest.Start(t)
			return object{"backend": "redis", "addresses": []string{r.Addr()}}, func() string {
				return r.Command(t, "KEYS", "dsapp:own:*") + r.Command(t, "KEYS", "dsapp:dev:*")
			}
		},
		"redis cluster": func(t *testing.T) (object, func() string) {
			t.Helper()
			return object{"backend": "redis", "cluster": true, "addresses": redistest.StartCluster(t, 0).Addresses()}, invisible
		},
		"redis sentinel": func(t *testing.T) (object, func() string) {
			t.Helper()
			s := redistest.StartSentinel(t, 1)
			// A replica may take a second to confirm for the first time.
			return object{"backend": "redis", "master_name": redistest.MasterName, "addresses": s.Addresses(), "wait_replicas": 1, "timeout": "5s"}, invisible
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certs := certificates(t)
			server := startOAS(t, certs)
			store, left := start(t)
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				withOtherApplication(dsapp)
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
	onEveryStore(t, func(t *testing.T, server *oas, g *gateway, left func() string) {
		a, b := g.activated(t), g.activated(t)
		require.NotEqual(t, a.SerialNumber, b.SerialNumber)
		for _, s := range kinds {
			for _, form := range []string{"plain", "wrapped"} {
				t.Run(s.kind+" "+form, func(t *testing.T) {
					key, outcome := ask(t, server, s, a)
					g.retrieved(t, s, frontEndKey, a.SerialNumber, key)
					sent := key
					if form == "wrapped" {
						sent = wrap(t, a, key)
					}
					before := server.Calls(s.cancelCommand)

					// Another application on the same device.
					status, answer := g.cancel(t, s, otherFrontEndKey, a.SerialNumber, sent)
					assert.Equal(t, http.StatusOK, status)
					assert.Equal(t, noSupport, answer)
					if form == "plain" {
						// Another device of the same application.
						status, answer = g.cancel(t, s, frontEndKey, b.SerialNumber, sent)
						assert.Equal(t, http.StatusOK, status)
						assert.Equal(t, noSupport, answer)
					}
					assert.Equal(t, before, server.Calls(s.cancelCommand), "nothing was forwarded")

					status, answer = g.cancel(t, s, frontEndKey, a.SerialNumber, sent)
					assert.Equal(t, http.StatusOK, status)
					assert.Equal(t, success, answer)
					assert.Equal(t, before+1, server.Calls(s.cancelCommand))
					require.Error(t, outcome(), "the application server learns of the rejection")
					assert.Empty(t, left(), "nothing is left of the ownership")
				})
			}
		}
	})
}

// A request is retrieved once, completed by the device's signature, and then gone.
func TestRequestIsCompleted(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, server *oas, g *gateway, left func() string) {
		a := g.activated(t)
		for _, s := range kinds {
			t.Run(s.kind, func(t *testing.T) {
				key, outcome := ask(t, server, s, a)
				message := g.retrieved(t, s, frontEndKey, a.SerialNumber, key)
				calls := server.Calls(s.retrieveCommand)
				status, answer := g.retrieve(t, s, otherFrontEndKey, a.SerialNumber, key)
				assert.Equal(t, http.StatusOK, status)
				assert.Equal(t, notFound, answer)
				assert.Equal(t, calls, server.Calls(s.retrieveCommand), "known to be retrieved without asking")

				// A wrong signature leaves everything as it was.
				status, answer = g.complete(t, s, key, "0000000")
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "RET_FAILURE")

				signature, err := a.Sign(message)
				require.NoError(t, err)
				status, answer = g.complete(t, s, key, signature)
				assert.Equal(t, http.StatusOK, status)
				assert.JSONEq(t, fmt.Sprintf(
					`{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0},
					"result":{"userID":%q,"domain":%q,"orgUnit":"","serialNo":%q}}`, userID, domain, a.SerialNumber), answer)
				require.NoError(t, outcome())
				assert.Empty(t, left(), "nothing is left of the ownership")
			})
		}
	})
}

// The store is a cache of ownership: when it is emptied between retrieval and
// cancel, the authentication server decides, unless that is not wanted.
func TestOwnershipIsACache(t *testing.T) {
	t.Parallel()
	for _, unknown := range []string{"forward", "refuse"} {
		t.Run(unknown, func(t *testing.T) {
			t.Parallel()
			certs := certificates(t)
			server := startOAS(t, certs)
			redis := redistest.Start(t)
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}}
				dsapp["requests"] = object{"unknown": unknown}
			})
			a := g.activated(t)
			for _, s := range kinds {
				for _, form := range []string{"plain", "wrapped"} {
					key, outcome := ask(t, server, s, a)
					g.retrieved(t, s, frontEndKey, a.SerialNumber, key)
					redis.FlushAll(t)
					sent := key
					if form == "wrapped" {
						sent = wrap(t, a, key)
					}
					before := server.Calls(s.cancelCommand)
					status, answer := g.cancel(t, s, frontEndKey, a.SerialNumber, sent)
					assert.Equal(t, http.StatusOK, status)
					if unknown == "refuse" {
						assert.Equal(t, noSupport, answer)
						assert.Equal(t, before, server.Calls(s.cancelCommand))
						continue
					}
					assert.Equal(t, success, answer)
					assert.Equal(t, before+1, server.Calls(s.cancelCommand))
					require.Error(t, outcome())
				}
			}
		})
	}
}

// nodes starts gateways that share a Redis server, in front of instances of
// authentication servers with caches of their own.
func nodes(t *testing.T, count int, edit func(dsapp object)) (gateways []*gateway, primary, backup *oas) {
	t.Helper()
	gateways, primary, backup, _ = nodesOnRedis(t, count, edit)
	return gateways, primary, backup
}

func nodesOnRedis(t *testing.T, count int, edit func(dsapp object)) (gateways []*gateway, primary, backup *oas, redis *redistest.Server) {
	t.Helper()
	certs := certificates(t)
	primary = startOAS(t, certs)
	backup = startReplica(t, certs, primary)
	redis = redistest.Start(t)
	for range count {
		gateways = append(gateways, startGateway(t, certs, primary.URL, func(dsapp object) {
			withOtherApplication(dsapp)
			dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}}
			servers := dsapp["authentication_servers"].(object)
			servers["instances"] = append(servers["instances"].([]object), object{"name": "backup", "url": backup.URL})
			servers["max_queue"] = 1000
			if edit != nil {
				edit(dsapp)
			}
		}))
	}
	return gateways, primary, backup, redis
}

// Two gateways on one Redis server behave as one: what was retrieved through the
// first is cancelled and completed through the second, on the instance that has it.
func TestNodesBehaveAsOne(t *testing.T) {
	t.Parallel()
	gateways, primary, backup := nodes(t, 2, nil)
	first, second := gateways[0], gateways[1]
	// Registered and begun on one node, completed on the other.
	a := second.activated(t)
	for _, s := range kinds {
		for _, server := range []*oas{primary, backup} {
			other := primary
			if server == primary {
				other = backup
			}
			t.Run(fmt.Sprintf("%s on backup %t", s.kind, server == backup), func(t *testing.T) {
				for _, form := range []string{"plain", "wrapped"} {
					key, outcome := ask(t, server, s, a)
					first.retrieved(t, s, frontEndKey, a.SerialNumber, key)
					sent := key
					if form == "wrapped" {
						sent = wrap(t, a, key)
					}
					before := other.Calls(s.cancelCommand)
					_, answer := second.cancel(t, s, otherFrontEndKey, a.SerialNumber, sent)
					assert.Equal(t, noSupport, answer)
					status, answer := second.cancel(t, s, frontEndKey, a.SerialNumber, sent)
					assert.Equal(t, http.StatusOK, status)
					assert.Equal(t, success, answer)
					assert.Equal(t, before, other.Calls(s.cancelCommand), "the other instance is not asked")
					require.Error(t, outcome())
				}

				key, outcome := ask(t, server, s, a)
				message := first.retrieved(t, s, frontEndKey, a.SerialNumber, key)
				signature, err := a.Sign(message)
				require.NoError(t, err)
				before := other.Calls(s.completeCommand)
				status, answer := second.complete(t, s, key, signature)
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "STAT_SUCCESS")
				require.NoError(t, outcome())
				assert.Equal(t, before, other.Calls(s.completeCommand))
			})
		}
	}
}

// Of many concurrent retrievals of one key through several nodes exactly one gets
// the request.
func TestOneRetrievalWins(t *testing.T) {
	t.Parallel()
	gateways, primary, _ := nodes(t, 2, nil)
	a := gateways[0].activated(t)
	const calls = 256
	for _, s := range kinds {
		key, _ := ask(t, primary, s, a)
		answers := make([]string, calls)
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				apiKey := []string{frontEndKey, otherFrontEndKey}[i/2%2]
				status, answer, err := gateways[i%2].try(t.Context(), s.retrieve, apiKey,
					fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.key, key))
				if err != nil || status != http.StatusOK {
					answer = fmt.Sprintf("status %d, error %v, %s", status, err, answer)
				}
				answers[i] = answer
			})
		}
		wg.Wait()
		won := 0
		for _, answer := range answers {
			if answer != notFound {
				won++
				assert.Contains(t, answer, "STAT_SUCCESS")
			}
		}
		assert.Equal(t, 1, won, s.kind)
	}
}

// That a request does not exist is only said if every instance said so. What is
// known to be on an instance is asked of that one only.
func TestInstanceDown(t *testing.T) {
	t.Parallel()
	gateways, primary, backup := nodes(t, 1, nil)
	g := gateways[0]
	a := g.activated(t)
	type pending struct {
		services
		retrieved, waiting, message string
	}
	var all []pending
	for _, s := range kinds {
		p := pending{services: s}
		p.retrieved, _ = ask(t, backup, s, a)
		p.waiting, _ = ask(t, backup, s, a)
		p.message = g.retrieved(t, s, frontEndKey, a.SerialNumber, p.retrieved)
		all = append(all, p)

		_, answer := g.retrieve(t, s, frontEndKey, a.SerialNumber, "0000000000")
		assert.Equal(t, notFound, answer, "both instances say so")
	}
	backup.Stop()

	for _, p := range all {
		t.Run(p.kind, func(t *testing.T) {
			unavailable := func(status int, answer string) {
				t.Helper()
				assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				assert.Contains(t, answer, "STAT_COMMS")
			}
			unavailable(g.retrieve(t, p.services, frontEndKey, a.SerialNumber, p.waiting))
			assert.Equal(t, 3, primary.Calls(p.retrieveCommand))

			completes, cancels := primary.Calls(p.completeCommand), primary.Calls(p.cancelCommand)
			signature, err := a.Sign(p.message)
			require.NoError(t, err)
			unavailable(g.complete(t, p.services, p.retrieved, signature))
			unavailable(g.cancel(t, p.services, frontEndKey, a.SerialNumber, p.retrieved))
			unavailable(g.cancel(t, p.services, frontEndKey, a.SerialNumber, wrap(t, a, p.retrieved)))
			assert.Equal(t, completes, primary.Calls(p.completeCommand), "the other instance is not asked")
			assert.Equal(t, cancels, primary.Calls(p.cancelCommand), "the other instance is not asked")

			// What is on the instance that is left goes on.
			key, outcome := ask(t, primary, p.services, a)
			message := g.retrieved(t, p.services, frontEndKey, a.SerialNumber, key)
			signature, err = a.Sign(message)
			require.NoError(t, err)
			_, answer := g.complete(t, p.services, key, signature)
			assert.Contains(t, answer, "STAT_SUCCESS")
			require.NoError(t, outcome())
		})
	}
}

// What the authentication servers decide anyway goes on without the store. What
// only the store could tell is refused as an outage, and nothing is denied that
// another instance may have.
func TestRequestsWithoutStore(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, redis := nodesOnRedis(t, 1, nil)
	g := gateways[0]
	a := g.activated(t)
	redis.Stop()
	_, err := g.Phone().Authenticate(t.Context(), a)
	require.NoError(t, err)
	for _, s := range kinds {
		for _, server := range []*oas{primary, backup} {
			t.Run(fmt.Sprintf("%s on backup %t", s.kind, server == backup), func(t *testing.T) {
				key, outcome := ask(t, server, s, a)
				message := g.retrieved(t, s, frontEndKey, a.SerialNumber, key)

				before := server.Calls(s.cancelCommand)
				for _, apiKey := range []string{frontEndKey, otherFrontEndKey} {
					status, answer := g.cancel(t, s, apiKey, a.SerialNumber, key)
					assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				}
				assert.Equal(t, before, server.Calls(s.cancelCommand), "a plain key proves nothing")

				signature, err := a.Sign(message)
				require.NoError(t, err)
				status, answer := g.complete(t, s, key, signature)
				if server == primary {
					assert.Equal(t, http.StatusOK, status, answer)
					assert.Contains(t, answer, "STAT_SUCCESS")
					require.NoError(t, outcome())
					return
				}
				assert.Equal(t, http.StatusServiceUnavailable, status, answer)
				status, answer = g.cancel(t, s, frontEndKey, a.SerialNumber, wrap(t, a, key))
				assert.Equal(t, http.StatusOK, status)
				assert.Equal(t, success, answer)
				require.Error(t, outcome())
			})
		}
	}
}

// Requests that the phone scans, one-time passwords and the deprecated services
// go the same way.
func TestOtherServices(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	g := startGateway(t, certs, server.URL, nil)
	a := g.activated(t)

	t.Run("one-time password", func(t *testing.T) {
		for _, version := range []int{1, 2} {
			phone := g.Phone()
			phone.Version = version
			done, err := phone.Authenticate(t.Context(), a)
			require.NoError(t, err)
			if version == 2 {
				assert.Equal(t, sandbox.AuthenticatedUser{UserID: userID, Domain: domain, SerialNumber: a.SerialNumber}, done)
			}
		}
		status, answer := g.Call(t, "/rest/v2/authentication/authUser", frontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":"000000"}`, userID, domain))
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
				key, err = application.PrepareLogin(t.Context(), sandbox.LoginRequest{UserID: userID, Domain: domain, Message: "Sign in?"})
				require.NoError(t, err)
				go func() {
					_, err := application.RequestLogin(t.Context(), sandbox.LoginRequest{UserID: userID, Domain: domain, Key: key})
					answered <- err
				}()
			} else {
				key, err = application.PrepareSignature(t.Context(), sandbox.SignatureRequest{UserID: userID, Domain: domain, SerialNumber: a.SerialNumber, Title: "Transfer", Fields: []sandbox.RequestField{{Key: "Amount", Value: "1"}}})
				require.NoError(t, err)
				go func() {
					_, err := application.RequestSignature(t.Context(), sandbox.SignatureRequest{UserID: userID, Domain: domain, Key: key})
					answered <- err
				}()
			}
			pending, err := phone.Retrieve(t.Context(), kind, a, key)
			require.NoError(t, err, kind)
			_, err = phone.Complete(t.Context(), kind, a, pending)
			require.NoError(t, err, kind)
			require.NoError(t, <-answered, kind)
		}
	})

	t.Run("version 1", func(t *testing.T) {
		phone := g.Phone()
		phone.Version = 1
		require.NoError(t, phone.UpdateNotificationID(t.Context(), a, "a new push ID"))
		key, outcome := ask(t, server, kinds[0], a)
		pending, err := phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
		require.NoError(t, err)
		_, err = phone.Complete(t.Context(), sandbox.KindLogin, a, pending)
		require.NoError(t, err)
		require.NoError(t, outcome())

		key, outcome = ask(t, server, kinds[0], a)
		_, err = phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
		require.NoError(t, err)
		require.NoError(t, phone.Cancel(t.Context(), sandbox.KindLogin, a, key, true))
		require.Error(t, outcome())
	})
}
