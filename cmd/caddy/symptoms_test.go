package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// symptom is a row of the chapter "Something is wrong" of docs/operation.md: where a cause
// is seen.
type symptom struct {
	series   map[string]bool // whether the value is to be 0
	lines    []string
	command  []string
	printed  []string
	commands string // the cell, for messages
}

// readSymptoms returns the rows by their causes.
func readSymptoms(t *testing.T) map[string]symptom {
	t.Helper()
	document, err := os.ReadFile("../../docs/operation.md")
	require.NoError(t, err)
	_, chapter, found := strings.Cut(string(document), "\n## Something is wrong\n")
	require.True(t, found)
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	span := regexp.MustCompile("`([^`]+)`( is 0)?")
	rows := make(map[string]symptom)
	for line := range strings.Lines(chapter) {
		if !strings.HasPrefix(line, "| ") || strings.Contains(line, "what to do |") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		require.Len(t, cells, 5, line)
		s := symptom{series: make(map[string]bool), commands: cells[3]}
		for _, m := range span.FindAllStringSubmatch(cells[1], -1) {
			s.series[m[1]] = m[2] != ""
		}
		for _, m := range span.FindAllStringSubmatch(cells[2], -1) {
			s.lines = append(s.lines, m[1])
		}
		for i, m := range span.FindAllStringSubmatch(cells[3], -1) {
			if i == 0 {
				s.command = strings.Fields(strings.TrimPrefix(m[1], "caddy dsapp "))
				continue
			}
			s.printed = append(s.printed, m[1])
		}
		cause := strings.TrimSpace(cells[0])
		require.NotContains(t, rows, cause)
		rows[cause] = s
	}
	return rows
}

// shows reports whether a scrape has a series with the labels of a documented one and a value
// that is greater than 0, or 0.
func (s series) shows(documented string, zero bool) bool {
	name, labels, _ := strings.Cut(strings.TrimSuffix(documented, "}"), "{")
	for full, value := range s {
		fullName, has, _ := strings.Cut(full, "{")
		missing := func(label string) bool { return label != "" && !strings.Contains(has, label) }
		if fullName == name && (value == 0) == zero && !slices.ContainsFunc(strings.Split(labels, ","), missing) {
			return true
		}
	}
	return false
}

// check checks that a gateway shows what the document says. The words are what stands for the
// arguments of the command in capital letters.
func (s symptom) check(t *testing.T, g *testbed.Gateway, words map[string]string) {
	t.Helper()
	for documented, zero := range s.series {
		poll.Until(t, documented, func() bool { return scrape(t, g).shows(documented, zero) })
	}
	for _, line := range s.lines {
		g.AwaitLog(t, line)
	}
	if s.command == nil {
		return
	}
	arguments := slices.Clone(s.command)
	for i, word := range arguments {
		if word == "FILE" {
			arguments[i] = writeConfig(t, g)
		} else if words[word] != "" {
			arguments[i] = words[word]
		}
	}
	if arguments[0] != "check" {
		arguments = append(arguments, "--address", g.Admin)
	}
	var out string
	for _, want := range s.printed {
		poll.Until(t, s.commands, func() bool {
			out, _ = operate(t, arguments...)
			return strings.Contains(out, want)
		})
	}
}

// The gateway shows each cause in the chapter "Something is wrong" as the chapter says: in the
// metrics, in the log, and in what the command prints.
func TestSymptoms(t *testing.T) {
	t.Parallel()
	rows := readSymptoms(t)
	provoked := slices.Sorted(maps.Keys(provocations))
	assert.Equal(t, slices.Sorted(maps.Keys(rows)), provoked)
	for _, cause := range provoked {
		t.Run(cause, func(t *testing.T) {
			t.Parallel()
			g, words := provocations[cause](t)
			rows[cause].check(t, g, words)
		})
	}
}

// words are what stands for the arguments of a command.
type words = map[string]string

// provocations bring a gateway into each cause of the chapter.
var provocations = map[string]func(t *testing.T) (*testbed.Gateway, words){
	"an authentication server does not work": func(t *testing.T) (*testbed.Gateway, words) {
		g, server := testbed.Start(t, func(dsapp testbed.Object) {
			dsapp["authentication_servers"].(testbed.Object)["breaker"] = testbed.Object{"failures": 1, "cooldown": "10m"}
		})
		server.Stop()
		expectStatus(t, g, http.StatusServiceUnavailable, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},
	"Redis does not answer": func(t *testing.T) (*testbed.Gateway, words) {
		redis := redistest.Start(t)
		g := startOnRedis(t, redis)
		g.AwaitLog(t, `"the store is ready"`)
		redis.Stop()
		poll.Until(t, "the breaker of Redis to open", func() bool {
			g.Call(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody)
			return strings.Contains(g.Logs.String(), "redis does not answer")
		})
		return g, nil
	},
	"Redis accepts no writes": func(t *testing.T) (*testbed.Gateway, words) {
		redis := redistest.Start(t)
		g := startOnRedis(t, redis)
		g.AwaitLog(t, `"the store is ready"`)
		redis.Fill(t, 4096, 1024)
		expectStatus(t, g, http.StatusServiceUnavailable, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},
	"the file of the embedded store cannot be opened": func(t *testing.T) (*testbed.Gateway, words) {
		certs := testbed.Certificates(t)
		g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
		path := g.App()["store"].(testbed.Object)["path"].(string)
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("no database", 1000)), 0o600))
		g.Start(t)
		expectStatus(t, g, http.StatusServiceUnavailable, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},
	"the queue of an authentication server is full": func(t *testing.T) (*testbed.Gateway, words) {
		g := startCongested(t, 1)
		poll.Until(t, "a full queue", func() bool {
			status, _ := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			return status == http.StatusServiceUnavailable
		})
		return g, nil
	},

	"a server gives answers that cannot be used (502)": func(t *testing.T) (*testbed.Gateway, words) {
		g, server := testbed.Start(t, nil)
		server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "no such page", http.StatusNotFound)
			return true
		})
		expectStatus(t, g, http.StatusBadGateway, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},
	"a server answers too late (504)": func(t *testing.T) (*testbed.Gateway, words) {
		g, server := testbed.Start(t, func(dsapp testbed.Object) { dsapp["authentication_servers"].(testbed.Object)["timeout"] = "1s" })
		server.Intercept(hang)
		expectStatus(t, g, http.StatusGatewayTimeout, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},
	"a registration is lost (500, 502)": func(t *testing.T) (*testbed.Gateway, words) {
		g, server := testbed.Start(t, nil)
		server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			testbed.ReadCommand(r)
			w.Header().Set("Content-Type", "text/xml")
			_, _ = io.WriteString(w, soapanswer.Provisioned(
				soapanswer.Attribute("PROVFLD_REGISTRATIONID", "no identifier"), soapanswer.Attribute("PROVFLD_ACTIVATION_MESSAGE", "0A0B"),
			))
			return true
		})
		expectStatus(t, g, http.StatusBadGateway, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		return g, nil
	},

	"the activation password is wrong": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		r := g.Register(t)
		g.Exchange(t, r.Identifier, "not the password")
		return g, words{"ID": r.Identifier}
	},
	"the registration is burned": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		r := g.Register(t)
		for range 3 {
			g.Exchange(t, r.Identifier, "not the password")
		}
		return g, words{"ID": r.Identifier}
	},
	"the registration has expired, or never existed": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		g.Exchange(t, "NoSuchRegistration", "a password")
		return g, words{"ID": "NoSuchRegistration"}
	},
	"the app has another profile than the registration, or the profile was changed": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, offerProfiles("rfc5054-2048-sha256", otherProfile))
		r := g.RegisterFor(t, testbed.Object{"profile": "other"})
		g.Exchange(t, r.Identifier, r.Password)
		return g, words{"ID": r.Identifier}
	},
	"a stranger begins exchanges of the same registration": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		r := g.Register(t)
		g.BeginExchange(t, r.Identifier, r.Password)
		g.From(t, "127.0.0.66").BeginExchange(t, r.Identifier, "a guess")
		return g, words{"ID": r.Identifier}
	},
	"the authentication server refuses the user": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		expectStatus(t, g, http.StatusOK, testbed.RegisterPath, testbed.BackEndKey, strings.Replace(testbed.RegisterBody, testbed.StaticPassword, "wrong", 1))
		return g, nil
	},

	"another application or device retrieved the request": func(t *testing.T) (*testbed.Gateway, words) {
		g, device, key := startWithLogin(t, nil)
		g.MustRetrieve(t, testbed.Login, testbed.FrontEndKey, device, key)
		assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, testbed.Login, testbed.OtherFrontEndKey, device, key)))
		return g, words{"SERIAL": device}
	},
	"nobody retrieved the request, and `requests.unknown` is `refuse`": func(t *testing.T) (*testbed.Gateway, words) {
		g, device, key := startWithLogin(t, testbed.Object{"unknown": "refuse"})
		assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, testbed.Login, testbed.FrontEndKey, device, key)))
		return g, words{"SERIAL": device}
	},
	"the key is plain, and `requests.plain_cancel` is `refuse`": func(t *testing.T) (*testbed.Gateway, words) {
		g, device, key := startWithLogin(t, testbed.Object{"plain_cancel": "refuse"})
		assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, testbed.Login, testbed.FrontEndKey, device, key)))
		return g, nil
	},
	"the authentication server does not have the request": func(t *testing.T) (*testbed.Gateway, words) {
		g, device, _ := startWithLogin(t, nil)
		expectStatus(t, g, http.StatusOK, testbed.Login.CancelPath, testbed.FrontEndKey, fmt.Sprintf(`{"serialNumber":%q,"challengeKey":"none"}`, device))
		return g, words{"SERIAL": device}
	},

	"an authentication server is slow, or there are too few connections to it": func(t *testing.T) (*testbed.Gateway, words) {
		return startCongested(t, 100), nil
	},
	"exchanges wait for a processor": func(t *testing.T) (*testbed.Gateway, words) { return startComputing(t), nil },
	"the store is slow": func(t *testing.T) (*testbed.Gateway, words) {
		redis := redistest.Start(t)
		g := startOnRedis(t, redis)
		g.AwaitLog(t, `"the store is ready"`)
		redis.Freeze(t)
		answered := make(chan int)
		go func() {
			status, _, _ := g.Try(t.Context(), testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			answered <- status
		}()
		poll.Until(t, "the registration to wait", func() bool { return scrape(t, g)["caddy_dsapp_requests_in_flight"] > 0 })
		redis.Thaw(t)
		assert.Equal(t, http.StatusOK, poll.Receive(t, "the registration", answered))
		return g, nil
	},

	"a client is too fast, or many share its address": func(t *testing.T) (*testbed.Gateway, words) {
		return startLimited(t, "calls_per_minute", testbed.FrontEndKey), nil
	},
	"an address has tried wrong keys": func(t *testing.T) (*testbed.Gateway, words) {
		return startLimited(t, "failed_keys_per_minute", "no such key"), nil
	},
	"more exchanges than the node can compute": func(t *testing.T) (*testbed.Gateway, words) { return startComputing(t), nil },

	"the key is not configured (401)": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		expectStatus(t, g, http.StatusUnauthorized, testbed.ServerTimePath, "no such key", "")
		return g, nil
	},
	"the key is of another class, or its address is not in `allow` (403)": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		expectStatus(t, g, http.StatusForbidden, testbed.RegisterPath, testbed.FrontEndKey, testbed.RegisterBody)
		return g, nil
	},

	"the node is drained": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/drain"))
		return g, nil
	},
	"an authentication server is drained on this node": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/instances/primary/drain"))
		return g, nil
	},
	"another version, configuration or kernel": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		return g, nil
	},
	"the process has ended, or the admin endpoint is elsewhere": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		g.Kill(t)
		return g, nil
	},
	"the embedded store has no room": func(t *testing.T) (*testbed.Gateway, words) {
		if !namespace.Inside() {
			t.Skip("no mount namespace")
		}
		folder := namespace.SmallDisk(t, 16<<20)
		g, _ := testbed.Start(t, func(dsapp testbed.Object) {
			dsapp["store"].(testbed.Object)["path"] = filepath.Join(folder, "dsapp.db")
		})
		g.Register(t)
		fillDisk(t, filepath.Join(folder, "other"))
		poll.Until(t, "a refused registration", func() bool {
			status, _ := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			return status == http.StatusServiceUnavailable
		})
		return g, nil
	},

	"that of a site, from a file": func(t *testing.T) (*testbed.Gateway, words) {
		certs := testbed.Certificates(t)
		g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
		ending := endingCertificate(t, certs, 23*time.Hour)
		g.Config["apps"].(testbed.Object)["tls"] = testbed.Object{"certificates": testbed.Object{"load_files": []testbed.Object{
			{"certificate": ending.Certificate, "key": ending.Key},
		}}}
		g.Start(t)
		return g, nil
	},
	"that of an authentication server": func(t *testing.T) (*testbed.Gateway, words) {
		certs := testbed.Certificates(t)
		return testbed.Configure(t, certs, testbed.StartServer(t, endingCertificate(t, certs, 29*24*time.Hour)).URL, nil), nil
	},
	"that with which the gateway is a client": func(t *testing.T) (*testbed.Gateway, words) {
		certs := testbed.Certificates(t)
		return testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, func(dsapp testbed.Object) {
			ending, options := endingCertificate(t, certs, 29*24*time.Hour), dsapp["authentication_servers"].(testbed.Object)["tls"].(testbed.Object)
			options["client_certificate_file"], options["client_certificate_key_file"] = ending.Certificate, ending.Key
		}), nil
	},

	"a sealing key is missing on this node": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		r := g.Register(t)
		g.App()["sealing_keys"] = []string{otherSealingKey}
		g.Load(t)
		expectStatus(t, g, http.StatusServiceUnavailable, testbed.EphemeralKeyPath, testbed.FrontEndKey, strings.Replace(testbed.EphemeralKeyBody, "Unknown1", r.Identifier, 1))
		return g, nil
	},
	"somebody else writes to the store": func(t *testing.T) (*testbed.Gateway, words) {
		redis := redistest.Start(t)
		g := startOnRedis(t, redis)
		redis.Command(t, "SET", "dsapp:own:signature:{12345}", "forged")
		expectStatus(t, g, http.StatusServiceUnavailable, testbed.Signature.RetrievePath, testbed.FrontEndKey, `{"serialNumber":"VDS1000000-1","requestKey":"12345"}`)
		return g, nil
	},
	"the rotation of a sealing key is not over": func(t *testing.T) (*testbed.Gateway, words) {
		g, _ := testbed.Start(t, nil)
		r := g.Register(t)
		g.App()["sealing_keys"] = []string{otherSealingKey, "{env.TEST_SEALING_KEY}"}
		g.Load(t)
		g.Exchange(t, r.Identifier, r.Password)
		return g, nil
	},
}

const otherSealingKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// expectStatus makes a call and checks the HTTP status of its answer.
func expectStatus(t *testing.T, g *testbed.Gateway, want int, path, key, body string) {
	t.Helper()
	status, answer := g.Call(t, path, key, body)
	require.Equal(t, want, status, answer)
}

// hang answers nothing for as long as the gateway waits.
func hang(_ http.ResponseWriter, r *http.Request) bool {
	testbed.ReadCommand(r) // otherwise the end of the connection is not noticed
	<-r.Context().Done()
	return true
}

func startOnRedis(t *testing.T, redis *redistest.Server) *testbed.Gateway {
	t.Helper()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) { dsapp["store"] = testbed.RedisStore(redis.Addr()) })
	return g
}

// startWithLogin starts a gateway with the other application, and returns the serial number of
// a device and the key of a login that the bank asks it for.
func startWithLogin(t *testing.T, requests testbed.Object) (g *testbed.Gateway, serialNumber, key string) {
	t.Helper()
	g, server := testbed.Start(t, func(dsapp testbed.Object) {
		testbed.AddOtherApplication(dsapp)
		if requests != nil {
			dsapp["requests"] = requests
		}
	})
	device := g.ActivatedDevice(t)
	key, _ = testbed.Ask(t, server, testbed.Login, device)
	return g, device.SerialNumber, key
}

// startLimited starts a gateway with a limit of one call, which an address exceeds.
func startLimited(t *testing.T, limit, key string) *testbed.Gateway {
	t.Helper()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) { dsapp["limits"].(testbed.Object)[limit] = 1 })
	g.Call(t, testbed.ServerTimePath, key, "")
	expectStatus(t, g, http.StatusTooManyRequests, testbed.ServerTimePath, key, "")
	return g
}

// startCongested starts a gateway with one connection to a server that answers nothing, and
// with callers that wait for it until the test is over.
func startCongested(t *testing.T, queue int) *testbed.Gateway {
	t.Helper()
	g, server := testbed.Start(t, func(dsapp testbed.Object) {
		servers := dsapp["authentication_servers"].(testbed.Object)
		servers["max_connections"], servers["max_queue"] = 1, queue
	})
	server.Intercept(hang)
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() { _, _, _ = g.Try(t.Context(), testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody) })
	}
	t.Cleanup(callers.Wait)
	poll.Until(t, "a command in the queue", func() bool { return scrape(t, g)[`caddy_dsapp_upstream_queue{upstream="primary"}`] > 0 })
	return g
}

// startComputing starts a gateway that computes one exchange at a time, and more callers than
// may wait, until the test is over.
func startComputing(t *testing.T) *testbed.Gateway {
	t.Helper()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["max_exchanges"] = 1
		dsapp["activation"] = testbed.Object{"profile": "rfc5054-4096-sha256"}
	})
	over := make(chan struct{})
	var callers sync.WaitGroup
	for range 40 {
		callers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_, _, _ = g.Try(t.Context(), testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody)
				}
			}
		})
	}
	t.Cleanup(func() {
		close(over)
		callers.Wait()
	})
	return g
}
