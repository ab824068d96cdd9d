package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

var crashSeed = flag.Uint64("crash-seed", 0, "choose the moments of TestSoakCrashes as an earlier run did; 0 for a new choice")

const (
	crashAttempts    = 8 // max_attempts
	crashActivations = 4 // max_activations
	crashWorkers     = 6
	// crashOpen is how many usable registrations a worker has.
	crashOpen = 3
	// crashUsers is how many users register in turns.
	crashUsers = 200
)

// However often and whenever the gateway is killed, an acknowledged registration can be used
// exactly as often as without kills: none is lost, none is activated more than max_activations
// times, none accepts more than max_attempts guesses, and every counted attempt stays counted.
//
// For every registration the test keeps the set of states that the answers so far allow. That
// is one state, or, if a kill left a call without an answer, all states that the call passes
// through. An answer that is not possible in any of them is wrong. After every kill the
// counters in a copy of the file must be those of one of them.
func TestSoakCrashes(t *testing.T) {
	t.Parallel()
	c := newCrashes(t)
	kills := testbed.Length(6, 40)
	l := c.start()
	for range crashWorkers {
		c.employ(l)
	}
	for n := range kills {
		l.await(c.choice)
		c.kill(l)
		c.probe()
		if n%4 == 3 {
			c.interrupt(c.longest)
		}
		next := c.start()
		c.recheck(next)
		if n == kills-1 {
			l.succeed(nil)
		} else {
			l.succeed(next)
		}
		l = next
	}
	c.workers.Wait()
	c.life.Store(nil)
	c.exhaust(l)
	l.g.Kill(t)
	c.probe()
	c.checkLog(l.g)
	c.checkTotals()
	c.report(kills)
}

// crashes is a run of the test.
type crashes struct {
	t      *testing.T
	ledger *testbed.Ledger
	server *testbed.Server
	g      *testbed.Gateway
	path   string
	seed   uint64
	choice *rand.Rand // of the test's own goroutine
	srp    *srp.Profile

	life    atomic.Pointer[life]
	workers sync.WaitGroup
	users   atomic.Int64  // that registered
	longest time.Duration // from the start of a process to its first exchange

	// All workers guess at the target.
	target *target
	// begun is an exchange of begunOf that the next process has to refuse.
	begun   *exchanging
	begunOf *tracked

	mu            sync.Mutex
	registrations []*tracked
	targets       []*target
	added         map[string]int // devices added by the authentication server
	looked        map[string]int // wrong proofs that were looked at, by the logs
	aimed         map[string]int // what kills were aimed at
	calls         int
	unanswered    int
	stale         int
}

func newCrashes(t *testing.T) *crashes {
	t.Helper()
	seed := cmp.Or(*crashSeed, rand.Uint64())
	t.Logf("-crash-seed %d", seed)
	certs := testbed.Certificates(t)
	c := &crashes{
		t:      t,
		ledger: testbed.NewLedger(t, "crashes"),
		seed:   seed,
		choice: rand.New(rand.NewPCG(seed, 0)),
		added:  make(map[string]int), looked: make(map[string]int), aimed: make(map[string]int),
	}
	var err error
	c.srp, err = srp.LookupProfile(srp.DefaultProfile)
	require.NoError(t, err)
	// Many registrations of one user would use up its licences.
	var users []sandbox.User
	for n := range crashUsers {
		users = append(users, sandbox.User{Name: crashUser(n), Domain: testbed.Domain, StaticPassword: testbed.StaticPassword})
	}
	c.server = testbed.Serve(t, certs, sandbox.New(sandbox.Options{Users: users}))
	c.server.Intercept(c.intercept)
	c.g = testbed.Configure(t, certs, c.server.URL, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"max_attempts": crashAttempts, "max_activations": crashActivations}
		dsapp["requests"] = testbed.Object{"repeat": "0s"} // every call is judged by itself
		c.path = dsapp["store"].(testbed.Object)["path"].(string)
	})
	// At INFO the log has all that is needed to judge the gateway.
	c.g.LogLevel("INFO")
	// A process can also be killed while it makes the file.
	c.interrupt(time.Second)
	// If the test fails early, the workers end with its context.
	t.Cleanup(c.workers.Wait)
	return c
}

func crashUser(n int) string { return fmt.Sprintf("crash-user-%d", n) }

// target is a registration at which all workers guess at the same time. They do not know which
// of their proofs were verified; the file and the log tell.
type target struct {
	testbed.Registration
	proofs  atomic.Int64
	counted int // attempts in the file after the last kill
}

// life is the life of a process.
type life struct {
	*crashes
	g       *testbed.Gateway
	ending  chan struct{} // closed before the process is killed
	trigger *trigger
	parked  sync.WaitGroup // workers that have not noticed its end

	replaced chan struct{}
	next     *life
}

func (l *life) over() bool {
	select {
	case <-l.ending:
		return true
	default:
		return false
	}
}

// succeed sends the workers to the next process, or home if there is none.
func (l *life) succeed(next *life) {
	l.next = next
	close(l.replaced)
}

// await waits for the moment of the kill.
func (l *life) await(choice *rand.Rand) {
	select {
	case <-l.trigger.fired:
	case <-time.After(5 * time.Second):
		// The event at which the kill is aimed does not come.
	}
	delay := time.NewTimer(time.Duration(choice.Int64N(int64(l.trigger.delay) + 1)))
	defer delay.Stop()
	<-delay.C
}

// trigger fires when an event has happened a number of times.
type trigger struct {
	on    string // path of a request that was written, or name of a command that the authentication server got; empty for any request
	hold  bool   // the command is carried out and its answer held back
	delay time.Duration
	left  atomic.Int64
	fired chan struct{}
}

func newTrigger(on string, times int) *trigger {
	k := &trigger{on: on, delay: 20 * time.Millisecond, fired: make(chan struct{})}
	k.left.Store(int64(times))
	return k
}

// hit counts an event and reports whether the trigger fires with it.
func (k *trigger) hit(what string) bool {
	if k.on != what && (k.on != "" || !strings.HasPrefix(what, "/")) {
		return false
	}
	if k.left.Add(-1) != 0 {
		return false
	}
	close(k.fired)
	return true
}

// aim chooses the moment of the next kill: early or late in the life of the process, between a
// request and its answer, or while a command is at the authentication server.
func (c *crashes) aim() *trigger {
	n := func(most int) int { return 1 + c.choice.IntN(most) }
	var k *trigger
	switch c.choice.IntN(8) {
	case 0:
		k = newTrigger("", n(5))
	case 1:
		k = newTrigger("", n(150))
	case 2, 3, 4:
		k = newTrigger(testbed.ActivationDataPath, n(40))
	case 5:
		k = newTrigger([]string{testbed.RegisterPath, testbed.EphemeralKeyPath, testbed.AddDevicePath, testbed.ActivatePath}[c.choice.IntN(4)], n(5))
	default:
		k = newTrigger([]string{"PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"}[c.choice.IntN(3)], n(4))
		k.hold = c.choice.IntN(2) == 0
	}
	c.aimed[cmp.Or(k.on, "any request")]++
	return k
}

var registrationID = regexp.MustCompile(`PROVFLD_REGISTRATIONID</attributeID>.*?>([A-Za-z0-9]{8})<`)

// intercept counts the devices that are added and reports commands to the trigger.
func (c *crashes) intercept(w http.ResponseWriter, r *http.Request) bool {
	body := testbed.ReadCommand(r)
	var command string
	for _, name := range []string{"PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"} {
		if strings.Contains(body, name) {
			command = name
		}
	}
	if command == "PROVISIONCMD_MDL_ADD_DEVICE" {
		if m := registrationID.FindStringSubmatch(body); m != nil {
			c.mu.Lock()
			c.added[m[1]]++
			c.mu.Unlock()
		}
	}
	l := c.life.Load()
	if l == nil || !l.trigger.hit(command) || !l.trigger.hold {
		return false
	}
	c.server.Server.ServeHTTP(httptest.NewRecorder(), r)
	<-r.Context().Done()
	return true
}

// start starts a process on the file and measures the time until its first exchange.
func (c *crashes) start() *life {
	c.t.Helper()
	g := *c.g
	g.Logs = new(output.Buffer)
	l := &life{crashes: c, g: &g, ending: make(chan struct{}), replaced: make(chan struct{}), trigger: c.aim()}
	// A life has connections of its own, so that every answer is one of this process.
	g.Client = testbed.NewClient(c.t, g.Certificates.Authority, "")
	g.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if l.over() {
			return nil, errors.New("the process has ended")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	begun := time.Now()
	g.Start(c.t)
	if c.target == nil || c.target.counted >= crashAttempts {
		c.besiege(l)
	}
	// From now on the trigger may hold commands back.
	c.life.Store(l)
	// A first call opens the file.
	status, _, err := g.Try(c.t.Context(), testbed.EphemeralKeyPath, testbed.FrontEndKey, `{"registrationIdentifier":"unknown1","clientEphemeralPublicKey":"05"}`)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, status)
	c.longest = max(c.longest, time.Since(begun))
	l.parked.Add(crashWorkers)
	return l
}

// interrupt starts a process and kills it after a random time of at most within, most likely
// before it serves.
func (c *crashes) interrupt(within time.Duration) {
	c.t.Helper()
	cmd := c.g.Command(c.t)
	require.NoError(c.t, cmd.Start())
	delay := time.NewTimer(time.Duration(c.choice.Int64N(int64(within))))
	defer delay.Stop()
	<-delay.C
	require.NoError(c.t, cmd.Process.Kill())
	_ = cmd.Wait()
	c.aimed["start"]++
}

// kill ends the process and waits until all workers have noticed.
func (c *crashes) kill(l *life) {
	c.t.Helper()
	c.life.Store(nil)
	close(l.ending)
	l.g.Kill(c.t)
	l.parked.Wait()
	c.checkLog(l.g)
}

// employ starts a worker that uses registrations of its own until the run is over.
func (c *crashes) employ(l *life) {
	w := &keeper{choice: rand.New(rand.NewPCG(c.seed, c.choice.Uint64()))}
	c.workers.Go(func() {
		for l != nil {
			for !l.over() && c.t.Context().Err() == nil && w.work(l) {
			}
			l.parked.Done()
			select {
			case <-l.replaced:
				l = l.next
			case <-c.t.Context().Done():
				return
			}
		}
	})
}

// besiege makes a new target.
func (c *crashes) besiege(l *life) {
	c.t.Helper()
	var r *tracked
	poll.Until(c.t, "a registration to attack", func() bool {
		r, _ = l.register()
		return r != nil
	})
	c.target = &target{Registration: r.Registration}
	c.targets = append(c.targets, c.target)
}

// recheck sends proofs to the new process before the workers use it: one of an exchange that an
// earlier process began, and some of whole exchanges, of the last registration and of others.
// It begins an exchange whose proof only the next process gets.
func (c *crashes) recheck(l *life) {
	c.t.Helper()
	if c.begun != nil && !c.begunOf.broken && !c.begunOf.expired() {
		l.prove(c.begunOf, c.begun)
	}
	c.begun = nil
	some := slices.DeleteFunc(slices.Clone(c.registrations), func(r *tracked) bool { return r.broken || r.expired() })
	if len(some) == 0 {
		return
	}
	one := func() *tracked { return some[c.choice.IntN(len(some))] }
	l.exchange(some[len(some)-1], true)
	l.exchange(one(), true)
	l.exchange(one(), false)
	c.begunOf = one()
	c.begun, _ = l.open(c.begunOf, c.choice.IntN(2) == 0)
}

// exhaust uses every registration up: wrong proofs until only one attempt is left, with which
// the right password still counts, and after which nothing does.
func (c *crashes) exhaust(l *life) {
	c.t.Helper()
	queue := make(chan *tracked)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for r := range queue {
				l.exhaust(r)
			}
		})
	}
	for _, r := range c.registrations {
		queue <- r
	}
	close(queue)
	workers.Wait()
}

// report logs what the run consisted of.
func (c *crashes) report(kills int) {
	c.t.Helper()
	c.t.Logf("%d kills and %d during a start, %d requests, %d of them without an answer, %d proofs of an earlier process, %d registrations, %d of them attacked together, longest start %v; aimed at %v",
		kills, c.aimed["start"], c.calls, c.unanswered, c.stale, len(c.registrations)+len(c.targets), len(c.targets), c.longest.Round(time.Millisecond), c.aimed)
}
