package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// Under load, an outage of the store has the effects of the table and no others: no call waits
// long for the store, services that need no store go on, and soon after the outage everything
// works again without a restart.
func TestSoakOutages(t *testing.T) {
	for _, so := range storeOutages {
		t.Run(so.name, func(t *testing.T) {
			if !testbed.Soaking() {
				t.Parallel()
			}
			certs := testbed.Certificates(t)
			server := testbed.StartServer(t, certs)
			store := so.start(t)
			f, g := startFront(t, testbed.StartQuietGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				dsapp["store"] = store.config
				if so.refuse {
					dsapp["requests"] = testbed.Object{"unknown": "refuse"}
				}
			}))
			var trouble atomic.Bool
			rule := tolerated(so.refuse, so.troubles)
			o := testbed.LoadOptions{Gateways: []*testbed.Gateway{g}, Server: server, Scenarios: slices.Clone(testbed.AllScenarios)}
			if !so.refuse {
				o.Scenarios = slices.DeleteFunc(o.Scenarios, func(s testbed.Scenario) bool { return s.Name == testbed.ForeignCancels.Name })
			}
			l := testbed.NewLedger(t, "outage: "+so.name)
			testbed.WarmUp(t, l, o)
			o.Tolerate = func(service string, status int, body string) bool {
				return trouble.Load() && rule(service, status, body)
			}
			healthy := time.Now()
			d := testbed.StartLoad(t, l, o)
			rounds := testbed.Length(1, 2)
			if so.once {
				rounds = 1
			}
			for range rounds {
				d.Turns(t, len(o.Scenarios))
				trouble.Store(true)
				began := time.Now()
				store.begin()
				outage := time.Duration(testbed.Length(6, 8)) * time.Second
				again := time.Now()
				poll.Until(t, "the outage to last", func() bool {
					if store.again != nil && time.Since(again) > 200*time.Millisecond {
						store.again()
						again = time.Now()
					}
					return time.Since(began) > outage
				})
				store.end()
				ended := time.Now()
				// Without a failure for so long, calls do not succeed only by chance.
				poll.Until(t, "calls to succeed", func() bool {
					return time.Since(ended) > 1500*time.Millisecond && time.Since(f.lastFailure()) > 1500*time.Millisecond
				})
				_, slowest := times(f.between(healthy, began))
				if back := f.lastFailure().Sub(ended); back > recovery+slowness*slowest {
					l.Broken("a call failed %v after the outage", back)
				}
				d.Turns(t, 2)
				trouble.Store(false)
				d.Turns(t, len(o.Scenarios))

				calls := f.between(began, ended)
				_, longest := times(calls)
				if most := longestWait + slowness*slowest; longest > most {
					l.Broken("a call took %v, want at most %v", longest, most)
				}
				for _, c := range calls {
					if c.status == http.StatusServiceUnavailable && !c.promise {
						l.Broken("%s: 503 without Retry-After", c.service)
					}
					if !so.refuse && c.status != http.StatusOK && slices.Contains(forwarded, c.service) {
						l.Broken("%s: status %d, and it needs no store", c.service, c.status)
					}
				}
				before, _ := times(f.between(healthy, began), forwarded...)
				// By a third of the outage, the calls have ended that waited for the store.
				during, _ := times(f.between(began.Add(outage/3), ended), forwarded...)
				t.Logf("forwarded services: median %v before, %v during the outage; longest call %v", before, during, longest)
				if during > storeTimeout/2+slowness*before {
					l.Broken("forwarded services wait for the store: median %v", during)
				}
				healthy = time.Now()
			}
		})
	}
}

// storeOutage is an outage of the store of a gateway under load.
type storeOutage struct {
	name     string
	troubles []trouble
	// refuse sets requests.unknown to refuse. Without it the authentication server decides
	// about cancels of requests without a known owner, so foreign cancels are left out.
	refuse bool
	once   bool // cannot happen again
	start  func(t *testing.T) storeUnderTrouble
}

// storeUnderTrouble is the configuration of a store, and what begins, continues and ends its
// trouble.
type storeUnderTrouble struct {
	config     testbed.Object
	begin, end func()
	again      func() // several times a second, may be nil
}

// impatient gives the configuration of a store the timeout of a store that fails.
func impatient(config testbed.Object) testbed.Object {
	config["timeout"] = storeTimeout.String()
	delete(config, "dial_timeout")
	return config
}

// storeTimeout is the timeout of a store that fails. A store that works keeps it on a busy
// machine, too.
const storeTimeout = time.Second

// longestWait is how long a call may wait for the store during an outage. Five attempts
// without an answer open the breaker, so that no call makes more; each waits for a connection
// and for an answer.
const longestWait = 5 * 2 * storeTimeout

// recovery is how long after an outage a call may still fail: a cooldown of the store's
// breaker and the call that finds out that the store is back.
const recovery = 5 * time.Second

// slowness is how many times the slowest call of before is added to these bounds: the rest of a
// call takes as long as the machine needs.
const slowness = 10

// onServer begins and ends the trouble of a single Redis server.
func onServer(begin, end func(t *testing.T, r *redistest.Server), args ...string) func(t *testing.T) storeUnderTrouble {
	return func(t *testing.T) storeUnderTrouble {
		r := redistest.Start(t, args...)
		return storeUnderTrouble{
			config: impatient(testbed.RedisStore(r.Addr())),
			begin:  func() { begin(t, r) }, end: func() { end(t, r) },
		}
	}
}

// storeOutages are the outages of the suite.
var storeOutages = []storeOutage{
	{name: "stopped and started", troubles: []trouble{silent}, start: onServer(stop, restart, "--appendonly", "yes")},
	{name: "frozen", troubles: []trouble{silent}, start: onServer(freeze, thaw)},
	// The next master has confirmed writes. Handshakes and ownership are not confirmed.
	{name: "Sentinel failover", troubles: []trouble{silent, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		s := redistest.StartSentinel(t, 2)
		return storeUnderTrouble{
			config: testbed.Object{
				"backend": "redis", "master_name": redistest.MasterName, "addresses": s.Addresses(), "wait_replicas": 1, "timeout": storeTimeout.String(),
			},
			begin: s.Servers[0].Stop,
			end:   func() { s.Master(t, s.Servers[0]) },
		}
	}},
	{name: "cluster failover", troubles: []trouble{silent, emptied}, refuse: true, once: true, start: func(t *testing.T) storeUnderTrouble {
		c := redistest.StartCluster(t, 1)
		return storeUnderTrouble{
			config: impatient(testbed.ClusterStore(c)),
			begin:  c.Masters[0].Stop,
			end: func() {
				next := c.Replicas[0]
				// The other masters may have elected it already.
				if strings.Contains(next.Command(t, "ROLE"), "slave") {
					next.Command(t, "CLUSTER", "FAILOVER", "TAKEOVER")
				}
				id := next.Command(t, "CLUSTER", "MYID")
				poll.Until(t, "the nodes to agree on the next master", func() bool {
					for _, node := range slices.Concat(c.Masters[1:], c.Replicas) {
						_, line, _ := strings.Cut(node.Command(t, "CLUSTER", "NODES"), id)
						line, _, _ = strings.Cut(line, "\n")
						if !strings.Contains(line, "master") || !strings.Contains(node.Command(t, "CLUSTER", "INFO"), "cluster_state:ok") {
							return false
						}
					}
					return true
				})
			},
		}
	}},
	{name: "node of a cluster lost", troubles: []trouble{silent, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		c := startPartialCluster(t)
		return storeUnderTrouble{
			config: impatient(testbed.ClusterStore(c)),
			begin:  c.Masters[0].Stop,
			end: func() {
				c.Masters[0].Restart(t)
				poll.Until(t, "the node to be back", func() bool {
					for _, node := range c.Masters {
						if nodes := node.Command(t, "CLUSTER", "NODES"); strings.Contains(nodes, "fail") ||
							!strings.Contains(node.Command(t, "CLUSTER", "INFO"), "cluster_state:ok") {
							return false
						}
					}
					return true
				})
			},
		}
	}},
	{name: "full", troubles: []trouble{readOnly}, refuse: true, start: onServer(fill, unfill)},
	{name: "replica", troubles: []trouble{readOnly}, refuse: true, start: onServer(demote, promote)},
	{name: "emptied", troubles: []trouble{emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		r := redistest.Start(t)
		return storeUnderTrouble{config: impatient(testbed.RedisStore(r.Addr())), begin: func() {}, again: func() { r.FlushAll(t) }, end: func() {}}
	}},
	// A write that does not fit evicts keys, and is refused if that is not enough.
	{name: "evicting", troubles: []trouble{readOnly, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		r := redistest.Start(t)
		used := func() int {
			_, rest, _ := strings.Cut(r.Command(t, "INFO", "memory"), "used_memory:")
			line, _, _ := strings.Cut(rest, "\r\n")
			n, err := strconv.Atoi(line)
			require.NoError(t, err)
			return n
		}
		return storeUnderTrouble{
			config: impatient(testbed.RedisStore(r.Addr())),
			begin:  func() { r.Command(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru") },
			again:  func() { r.Command(t, "CONFIG", "SET", "maxmemory", strconv.Itoa(used()-1000)) },
			end:    func() { unfill(t, r) },
		}
	}},
}

// tolerated returns which refusals of rightful calls the table allows to a gateway with one
// authentication server.
func tolerated(refuse bool, troubles []trouble) func(service string, status int, body string) bool {
	allowed := make(map[string]bool)
	for _, row := range withoutStore {
		for _, tr := range troubles {
			// The one authentication server has every request.
			if want := row.expected(tr, refuse); want != answerSuccess && want != answerNotFound {
				allowed[row.service+" "+want] = true
			}
			if row.service == testbed.RegisterPath && tr != emptied {
				// A write of the last second made the registration believe in the store.
				allowed[row.service+" 500"] = true
			}
		}
	}
	return func(service string, status int, body string) bool {
		if service == testbed.Signature.CancelPath {
			service = testbed.Login.CancelPath
		}
		answer := strconv.Itoa(status)
		if status == http.StatusOK {
			_, rest, _ := strings.Cut(body, `"statusCodeEnum":"`)
			answer, _, _ = strings.Cut(rest, `"`)
		}
		return allowed[service+" "+answer]
	}
}

// wrappedCancel is the name of cancels with a wrapped key in a front.
const wrappedCancel = "wrapped cancel"

// front is a proxy before a gateway that measures every call.
type front struct {
	mu    sync.Mutex
	calls []frontCall
}

type frontCall struct {
	service string
	status  int
	began   time.Time
	took    time.Duration
	promise bool // whether a 503 says when to come back
}

// startFront starts a front and returns it, and the gateway with the URL of the front.
func startFront(t *testing.T, g *testbed.Gateway) (*front, *testbed.Gateway) {
	t.Helper()
	f := new(front)
	target, err := url.Parse(g.URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = testbed.NewClient(t, g.Certificates.Authority, "").Transport
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	pair, err := tls.LoadX509KeyPair(g.Certificates.Certificate, g.Certificates.Key)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := frontCall{service: r.URL.Path, began: time.Now()}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, s := range testbed.RequestKinds {
			// A plain key is shorter.
			if r.URL.Path == s.CancelPath && len(body) > 100 {
				call.service = wrappedCancel
			}
		}
		seen := &statusWriter{ResponseWriter: w}
		proxy.ServeHTTP(seen, r)
		call.status, call.took, call.promise = seen.status, time.Since(call.began), w.Header().Get("Retry-After") != ""
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, call)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	through := *g
	through.URL = server.URL
	return f, &through
}

// statusWriter records the status.
type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// between returns the calls that began in a period.
func (f *front) between(begin, end time.Time) []frontCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	var calls []frontCall
	for _, c := range f.calls {
		if !c.began.Before(begin) && c.began.Before(end) {
			calls = append(calls, c)
		}
	}
	return calls
}

// lastFailure returns when the last call ended whose status is not 200.
func (f *front) lastFailure() (last time.Time) {
	for _, c := range f.between(time.Time{}, time.Now()) {
		if end := c.began.Add(c.took); c.status != http.StatusOK && end.After(last) {
			last = end
		}
	}
	return last
}

// times returns the median and the longest time of the calls of services, or of all if none are
// named.
func times(calls []frontCall, services ...string) (median, longest time.Duration) {
	var took []time.Duration
	for _, c := range calls {
		if len(services) == 0 || slices.Contains(services, c.service) {
			took = append(took, c.took)
		}
	}
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// forwarded are the services that need no store.
var forwarded = []string{
	testbed.ServerTimePath, testbed.LoginPath, testbed.NotificationPath, wrappedCancel,
	testbed.Login.RetrievePath, testbed.Signature.RetrievePath,
	testbed.Login.CompletePath, testbed.Signature.CompletePath,
}
