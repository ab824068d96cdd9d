package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

var crashSeed = flag.Uint64("crash-seed", 0, "choose the moments of TestSoakCrashes as an earlier run did; 0 for a new choice")

const (
	crashAttempts    = 8 // max_attempts
	crashActivations = 4 // max_activations
	crashWorkers     = 6
	// crashOpen is how many registrations that can still be used a worker has.
	crashOpen = 3
	// crashUsers is how many users take turns in registering.
	crashUsers = 200
)

// However often and whenever the gateway is killed, an acknowledged registration
// can be used exactly as often as without: none is lost, none is activated more
// than max_activations times, none is guessed at more than max_attempts times,
// and no attempt that was counted is forgotten.
//
// For every registration the test keeps the states that what was answered admits:
// one, and while a kill left a call without an answer those that the call passes
// through. An answer that no such state explains is wrong. After every kill the
// counters are read from a copy of the file and have to be those of such a state.
func TestSoakCrashes(t *testing.T) {
	t.Parallel()
	c := newCrashes(t)
	kills := length(6, 40)
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

// crashes is one run of the test.
type crashes struct {
	t      *testing.T
	ledger *ledger
	server *oas
	g      *gateway
	path   string
	seed   uint64
	choice *rand.Rand // of the test's own goroutine
	srp    *srp.Profile

	life    atomic.Pointer[life]
	workers sync.WaitGroup
	users   atomic.Int64  // that registered
	longest time.Duration // from the start of a process to its first exchange

	// target is attacked by all workers at once.
	target *target
	// begun is an exchange of a registration that the next process has to refuse.
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
	certs := certificates(t)
	c := &crashes{
		t:      t,
		ledger: newLedger(t, "crashes"),
		seed:   seed,
		choice: rand.New(rand.NewPCG(seed, 0)),
		added:  make(map[string]int), looked: make(map[string]int), aimed: make(map[string]int),
	}
	var err error
	c.srp, err = srp.LookupProfile(srp.DefaultProfile)
	require.NoError(t, err)
	// A licence that many registrations share would run out of devices meanwhile.
	var users []sandbox.User
	for n := range crashUsers {
		users = append(users, sandbox.User{Name: crashUser(n), Domain: domain, StaticPassword: staticPassword})
	}
	c.server = serveOAS(t, certs, sandbox.New(sandbox.Options{Users: users}))
	c.server.Intercept(c.intercept)
	c.g = configure(t, certs, c.server.URL, func(dsapp object) {
		dsapp["activation"] = object{"max_attempts": crashAttempts, "max_activations": crashActivations}
		c.path = dsapp["store"].(object)["path"].(string)
	})
	// What the gateway logs of its own accord at INFO is enough to judge it.
	c.g.Config["logging"].(object)["logs"].(object)["default"].(object)["level"] = "INFO"
	// The start that makes the file can be killed as well.
	c.interrupt(time.Second)
	// If the test fails early, the workers end with its context.
	t.Cleanup(c.workers.Wait)
	return c
}

func crashUser(n int) string { return fmt.Sprintf("crash-user-%d", n) }

// state is what the store keeps of a registration, and whether the
// authentication server has completed it.
type state struct {
	exists, done                                  bool
	attempts, activations, devices, confirmations int
}

// decision is what an answer says.
type decision string

const (
	granted    decision = "granted"
	turnedDown decision = "refused"
	gone       decision = "not found by the authentication server"
)

// operation tells what a call does to a state: the states that are stored on the
// way, from the one before to the one after it, and what is answered.
type operation func(s state) (way []state, answer decision)

func rightProof(s state) ([]state, decision) {
	if !s.exists || s.attempts >= crashAttempts {
		return []state{s}, turnedDown
	}
	taken := s
	taken.attempts++
	if s.activations >= crashActivations {
		return []state{s, taken}, turnedDown
	}
	proven := s
	proven.activations++
	proven.devices++
	return []state{s, taken, proven}, granted
}

func wrongProof(s state) ([]state, decision) {
	if !s.exists || s.attempts >= crashAttempts {
		return []state{s}, turnedDown
	}
	taken := s
	taken.attempts++
	return []state{s, taken}, turnedDown
}

// staleProof belongs to a handshake that died with its process.
func staleProof(s state) ([]state, decision) { return []state{s}, turnedDown }

func deviceAdded(s state) ([]state, decision) {
	if !s.exists || s.devices == 0 {
		return []state{s}, turnedDown
	}
	used := s
	used.devices--
	if s.done {
		return []state{s, used}, gone
	}
	return []state{s, used}, granted
}

func confirmed(s state) ([]state, decision) {
	if !s.exists || s.activations == 0 || s.confirmations >= crashAttempts {
		return []state{s}, turnedDown
	}
	counted := s
	counted.confirmations++
	if s.done {
		return []state{s, counted}, gone
	}
	completed := counted
	completed.done = true
	return []state{s, counted, completed, {done: true}}, granted
}

// counters is what the store's methods tell of a state.
type counters struct {
	exists                                        bool
	attempts, activations, devices, confirmations int // that are left
}

func (s state) counters() counters {
	if !s.exists {
		return counters{}
	}
	c := counters{exists: true, attempts: crashAttempts - s.attempts, devices: s.devices}
	if c.attempts > 0 {
		c.activations = crashActivations - s.activations
	}
	if s.activations > 0 {
		c.confirmations = crashAttempts - s.confirmations
	}
	return c
}

// tracked is an acknowledged registration. One goroutine at a time uses it.
type tracked struct {
	registration
	expires time.Time
	states  []state
	history []string
	broken  bool        // an answer was wrong: nothing is known any more
	waiting *exchanging // whose handshake is kept, unless its process has ended

	device     *sandbox.Device
	deviceCode string
	signature  string // for the device added last
}

// usable tells whether a right proof may still be granted.
func (r *tracked) usable() bool {
	return slices.ContainsFunc(r.states, func(s state) bool {
		_, answer := rightProof(s)
		return answer == granted
	})
}

// entitled tells whether a device may still be added.
func (r *tracked) entitled() bool {
	return slices.ContainsFunc(r.states, func(s state) bool { return s.devices > 0 })
}

// expired tells whether the end of the registration is too near to judge answers.
func (r *tracked) expired() bool { return time.Until(r.expires) < time.Minute }

// settle keeps the states that explain the reply to an operation.
func (r *tracked) settle(name string, do operation, f fate, seen decision) bool {
	if f == unsent {
		return true
	}
	before := r.states
	var after []state
	for _, s := range before {
		way, answer := do(s)
		switch {
		case f == unanswered:
			after = append(after, way...)
		case answer == seen:
			after = append(after, way[len(way)-1])
		}
	}
	line := fmt.Sprintf("%s: %s", name, cmp.Or(string(seen), "no answer"))
	r.history = append(r.history, line)
	r.states = distinct(after)
	return len(after) > 0
}

func distinct(states []state) []state {
	var kept []state
	for _, s := range states {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// target is a registration that all workers guess at, concurrently. Which of
// their proofs was looked at is not known to them; the file and the log tell.
type target struct {
	registration
	proofs  atomic.Int64
	counted int // attempts in the file after the last kill
}

// life is the life of one process.
type life struct {
	*crashes
	g       *gateway
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

// succeed lets the workers go on with the next process, or stop.
func (l *life) succeed(next *life) {
	l.next = next
	close(l.replaced)
}

// await waits for the moment to kill.
func (l *life) await(choice *rand.Rand) {
	select {
	case <-l.trigger.fired:
	case <-time.After(5 * time.Second):
		// What the kill was aimed at does not come.
	}
	delay := time.NewTimer(time.Duration(choice.Int64N(int64(l.trigger.delay) + 1)))
	defer delay.Stop()
	<-delay.C
}

// trigger fires when something happened a number of times.
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

// hit reports whether the trigger fired now.
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

// aim chooses the moment of the next kill: early or late in the life, between a
// request of a certain kind and its answer, or while the authentication server
// is asked.
func (c *crashes) aim() *trigger {
	n := func(most int) int { return 1 + c.choice.IntN(most) }
	var k *trigger
	switch c.choice.IntN(8) {
	case 0:
		k = newTrigger("", n(5))
	case 1:
		k = newTrigger("", n(150))
	case 2, 3, 4:
		k = newTrigger(activationDataPath, n(40))
	case 5:
		k = newTrigger([]string{registerPath, ephemeralKeyPath, addDevicePath, activatePath}[c.choice.IntN(4)], n(5))
	default:
		k = newTrigger([]string{"PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"}[c.choice.IntN(3)], n(4))
		k.hold = c.choice.IntN(2) == 0
	}
	c.aimed[cmp.Or(k.on, "any request")]++
	return k
}

var registrationID = regexp.MustCompile(`PROVFLD_REGISTRATIONID</attributeID>.*?>([A-Za-z0-9]{8})<`)

// intercept counts the devices that are added and fires the trigger.
func (c *crashes) intercept(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var command string
	for _, name := range []string{"PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"} {
		if bytes.Contains(body, []byte(name)) {
			command = name
		}
	}
	if command == "PROVISIONCMD_MDL_ADD_DEVICE" {
		if m := registrationID.FindSubmatch(body); m != nil {
			c.mu.Lock()
			c.added[string(m[1])]++
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

// start runs a process on the file and measures the time to its first exchange.
func (c *crashes) start() *life {
	c.t.Helper()
	g := *c.g
	g.Logs = new(logs)
	l := &life{crashes: c, g: &g, ending: make(chan struct{}), replaced: make(chan struct{}), trigger: c.aim()}
	// Connections of a life end with it, so that an answer tells whose it is.
	g.client = client(c.t, g.certs.Authority, "")
	g.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if l.over() {
			return nil, errors.New("the process has ended")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	begun := time.Now()
	g.Start(c.t)
	c.life.Store(l)
	if c.target == nil || c.target.counted >= crashAttempts {
		c.besiege(l)
	}
	// The exchange opens the file.
	status, _, err := g.try(c.t.Context(), ephemeralKeyPath, frontEndKey, `{"registrationIdentifier":"unknown1","clientEphemeralPublicKey":"05"}`)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, status)
	c.longest = max(c.longest, time.Since(begun))
	l.parked.Add(crashWorkers)
	return l
}

// interrupt starts a process and kills it within some time, most likely before it
// serves.
func (c *crashes) interrupt(within time.Duration) {
	c.t.Helper()
	config, err := json.Marshal(c.g.Config)
	require.NoError(c.t, err)
	path := filepath.Join(c.t.TempDir(), "caddy.json")
	require.NoError(c.t, os.WriteFile(path, config, 0o600))
	cmd := exec.Command(caddyBinary, "run", "--config", path)
	cmd.Env = append(environment(c.t.TempDir()),
		"TEST_FRONT_END_KEY="+frontEndKey, "TEST_BACK_END_KEY="+backEndKey, "TEST_SEALING_KEY="+sealingKey)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(c.t, cmd.Start())
	delay := time.NewTimer(time.Duration(c.choice.Int64N(int64(within))))
	defer delay.Stop()
	<-delay.C
	require.NoError(c.t, cmd.Process.Kill())
	_ = cmd.Wait()
	c.aimed["start"]++
}

// kill ends the process and waits until everyone has noticed.
func (c *crashes) kill(l *life) {
	c.t.Helper()
	close(l.ending)
	l.g.Kill(c.t)
	l.parked.Wait()
	c.checkLog(l.g)
}

// fate is what became of a request.
type fate int

const (
	unsent fate = iota
	unanswered
	answered
)

// call sends a request and enters it in the ledger, except one that was answered:
// the caller judges the answer.
//
// A request that got no connection was not sent and does not count. One whose
// process was killed before the answer was read is neither lost nor wrong: it
// counts as refused, and what it did is unknown.
func (l *life) call(path, key string, body object) (f fate, status int, answer string) {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(l.t.Context(), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { l.trigger.hit(path) },
	})
	status, answer, err = l.g.try(ctx, path, key, string(encoded))
	if err != nil && !connected.Load() {
		return unsent, 0, ""
	}
	l.ledger.Sent()
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	switch {
	case err == nil:
		return answered, status, answer
	case l.over():
		l.mu.Lock()
		l.unanswered++
		l.mu.Unlock()
		l.ledger.Refused()
	default:
		l.ledger.Lost("%s: %v", path, err)
	}
	return unanswered, 0, ""
}

// result decodes an answer.
func result(status int, answer string, into any) (decision, error) {
	if status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", status, answer)
	}
	switch answer {
	case refused:
		return turnedDown, nil
	case notFound:
		return gone, nil
	}
	decoded := struct {
		Result      any
		ResultCodes struct{ ReturnCodeEnum string }
	}{Result: into}
	if err := json.Unmarshal([]byte(answer), &decoded); err != nil {
		return "", fmt.Errorf("%w: %s", err, answer)
	}
	if decoded.ResultCodes.ReturnCodeEnum != "RET_SUCCESS" {
		return "", errors.New(answer)
	}
	return granted, nil
}

// operate carries out one call for a registration and judges its answer; into
// gets the result of one that was granted.
func (l *life) operate(r *tracked, name string, do operation, path string, body object, into any) (decision, fate) {
	before := r.states
	f, status, text := l.call(path, frontEndKey, body)
	if f != answered {
		r.settle(name, do, f, "")
		return "", f
	}
	seen, err := result(status, text, into)
	switch {
	case err != nil:
		l.ledger.Wrong("%s of %s: %v", name, r.Identifier, err)
		r.broken = true
	case !r.settle(name, do, f, seen):
		l.ledger.Wrong("%s of %s: %s, which none of %+v explains, after %q", name, r.Identifier, seen, before, r.history)
		r.broken = true
	case seen == granted:
		l.ledger.Answered()
		return granted, f
	default:
		l.ledger.Refused()
	}
	return seen, f
}

// register makes a registration, if it is acknowledged.
func (l *life) register() (*tracked, fate) {
	f, status, text := l.call(registerPath, backEndKey, object{
		"userID": crashUser(int(l.users.Add(1)) % crashUsers), "domain": domain, "staticPassword": staticPassword,
	})
	if f != answered {
		return nil, f
	}
	r := &tracked{states: []state{{exists: true}}}
	seen, err := result(status, text, &r.registration)
	if err == nil && seen != granted {
		err = errors.New(string(seen))
	}
	if err == nil {
		r.expires, err = time.Parse(time.RFC3339, r.ExpiresAt)
	}
	if err != nil {
		l.ledger.Wrong("registration: %v", err)
		return nil, f
	}
	l.ledger.Answered()
	return r, f
}

// exchanging is an exchange between its calls.
type exchanging struct {
	client                   *srp.Client
	public, server, evidence []byte
	right                    bool
	begun                    *life
}

// begin makes the first call of an exchange, which changes nothing that lasts.
func (l *life) begin(r registration, right bool) (*exchanging, fate) {
	password := r.Password
	if !right {
		password = "wrong-password"
	}
	client, err := l.srp.NewClient(r.Identifier, password)
	if err != nil {
		panic(err)
	}
	x := &exchanging{client: client, public: client.Public(), right: right, begun: l}
	f, status, text := l.call(ephemeralKeyPath, frontEndKey,
		object{"registrationIdentifier": r.Identifier, "clientEphemeralPublicKey": upperHex(x.public)})
	if f != answered {
		return nil, f
	}
	var challenge struct{ ServerEphemeralPublicKey, Salt string }
	seen, err := result(status, text, &challenge)
	if err == nil && seen != granted {
		err = errors.New(string(seen))
	}
	var salt []byte
	if err == nil {
		salt, err = hex.DecodeString(challenge.Salt)
	}
	if err == nil {
		x.server, err = hex.DecodeString(challenge.ServerEphemeralPublicKey)
	}
	if err == nil {
		x.evidence, err = client.Prove(salt, x.server)
	}
	if err != nil {
		l.ledger.Wrong("first call of %s: %v", r.Identifier, err)
		return nil, unanswered
	}
	l.ledger.Answered()
	return x, f
}

// prove makes the second call of an exchange, which another process may have begun.
func (l *life) prove(r *tracked, x *exchanging) (decision, fate) {
	name, do := "wrong proof", wrongProof
	if x.right {
		name, do = "right proof", rightProof
	}
	waiting := r.waiting
	r.waiting = nil
	switch {
	case waiting == nil || waiting.begun.g != l.g:
		name, do = name+" of an earlier process", staleProof
		l.mu.Lock()
		l.stale++
		l.mu.Unlock()
	case waiting != x:
		name, do = name+" of another exchange", wrongProof
	}
	var proof struct{ ServerEvidenceMessage, EncryptedLicenseActivationMessage, EncryptedCounter, MAC string }
	seen, f := l.operate(r, name, do, activationDataPath,
		object{"registrationIdentifier": r.Identifier, "clientEvidenceMessage": upperHex(x.evidence)}, &proof)
	if seen != granted || r.broken {
		return seen, f
	}
	key, err := x.client.Confirm([]byte(raw(proof.ServerEvidenceMessage)))
	if err == nil {
		var message []byte
		message, err = srp.NewSession(key, x.public, x.server).Open(seal.LicenseActivationMessage, seal.Ciphertext{
			Data: []byte(raw(proof.EncryptedLicenseActivationMessage)), Counter: []byte(raw(proof.EncryptedCounter)), MAC: []byte(raw(proof.MAC)),
		})
		if err == nil {
			r.device = sandbox.NewDevice(rand.Uint32())
			r.deviceCode, err = r.device.ActivateLicense(string(message))
		}
	}
	if err != nil {
		r.broken = true
		l.ledger.Broken("activation data of %s: %v", r.Identifier, err)
	}
	r.signature = ""
	return seen, f
}

// open makes the first call for a registration that is not attacked by others.
func (l *life) open(r *tracked, right bool) (*exchanging, fate) {
	x, f := l.begin(r.registration, right)
	if f == answered {
		r.waiting = x
	}
	return x, f
}

// exchange makes both calls.
func (l *life) exchange(r *tracked, right bool) (decision, fate) {
	x, f := l.open(r, right)
	if f != answered {
		return "", f
	}
	return l.prove(r, x)
}

// addDevice makes the third call of an activation.
func (l *life) addDevice(r *tracked) fate {
	// Whether or not it is answered, the authentication server may wait for the
	// signature of the new device from now on.
	r.signature = ""
	var added struct{ InstanceActivationMessage string }
	seen, f := l.operate(r, "device", deviceAdded, addDevicePath,
		object{"registrationIdentifier": r.Identifier, "deviceCode": r.deviceCode}, &added)
	if seen == granted && !r.broken {
		var err error
		if r.signature, err = r.device.ActivateInstance(added.InstanceActivationMessage); err != nil {
			r.broken = true
			l.ledger.Broken("activation message 2 of %s: %v", r.Identifier, err)
		}
	}
	return f
}

// confirm makes the last call of an activation.
func (l *life) confirm(r *tracked) fate {
	_, f := l.operate(r, "confirmation", confirmed, activatePath,
		object{"registrationIdentifier": r.Identifier, "signature": r.signature}, new(object))
	return f
}

// employ starts a worker that uses its own registrations until the run is over.
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

// keeper plays phones, the bank's site and an attacker.
type keeper struct {
	choice *rand.Rand
	open   []*tracked
	// An exchange that was begun and not ended.
	begun *exchanging
	of    *tracked
}

// chance is true once in n times.
func (w *keeper) chance(n int) bool { return w.choice.IntN(n) == 0 }

// work makes one or a few calls and reports whether the process answers.
func (w *keeper) work(l *life) bool {
	if x, r := w.begun, w.of; x != nil {
		w.begun, w.of = nil, nil
		_, f := l.prove(r, x)
		return f == answered
	}
	w.open = slices.DeleteFunc(w.open, func(r *tracked) bool { return r.broken || !r.usable() || r.expired() })
	if len(w.open) < crashOpen {
		r, f := l.register()
		if r != nil {
			w.open = append(w.open, r)
			l.mu.Lock()
			l.registrations = append(l.registrations, r)
			l.mu.Unlock()
		}
		return f == answered
	}
	if w.chance(8) {
		return l.guess()
	}
	r := w.open[w.choice.IntN(len(w.open))]
	switch {
	case r.signature != "" && w.chance(2):
		return l.confirm(r) == answered
	case r.deviceCode != "" && (r.entitled() && w.chance(2) || w.chance(12)):
		return l.addDevice(r) == answered
	}
	x, f := l.open(r, w.chance(3))
	if f != answered {
		return false
	}
	// If the process has ended meanwhile, the next one gets the proof.
	w.begun, w.of = x, r
	return true
}

// guess attacks the target together with the other workers.
func (l *life) guess() bool {
	x, f := l.begin(l.target.registration, false)
	if f != answered {
		return false
	}
	l.target.proofs.Add(1)
	f, status, text := l.call(activationDataPath, frontEndKey,
		object{"registrationIdentifier": l.target.Identifier, "clientEvidenceMessage": upperHex(x.evidence)})
	if f != answered {
		return false
	}
	if seen, err := result(status, text, nil); err != nil || seen != turnedDown {
		l.ledger.Wrong("guess at %s: %s: %v", l.target.Identifier, seen, err)
		return true
	}
	l.ledger.Refused()
	return true
}

// besiege makes a new target.
func (c *crashes) besiege(l *life) {
	c.t.Helper()
	r, f := l.register()
	require.Equal(c.t, answered, f)
	c.target = &target{registration: r.registration}
	c.targets = append(c.targets, c.target)
}

// probe checks a copy of the file, while no process has it open: every page, and
// every counter of every registration.
func (c *crashes) probe() {
	c.t.Helper()
	content, err := os.ReadFile(c.path)
	require.NoError(c.t, err)
	copied := filepath.Join(c.t.TempDir(), "dsapp.db")
	require.NoError(c.t, os.WriteFile(copied, content, 0o600))
	db, err := bolt.Open(copied, 0o600, nil)
	require.NoError(c.t, err)
	require.NoError(c.t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			c.ledger.Broken("file: %v", err)
		}
		return nil
	}))
	require.NoError(c.t, db.Close())

	s, err := embedded.Open(copied, embedded.Options{})
	require.NoError(c.t, err)
	// The calls for all registrations share transactions.
	var all sync.WaitGroup
	for _, r := range c.registrations {
		if r.broken || r.expired() {
			continue
		}
		all.Go(func() {
			found, err := count(c.t.Context(), s, r.Identifier)
			if err != nil {
				c.ledger.Broken("counters of %s: %v", r.Identifier, err)
				return
			}
			explained := slices.DeleteFunc(slices.Clone(r.states), func(s state) bool { return s.counters() != found })
			if len(explained) == 0 {
				c.ledger.Broken("%s: the file leaves %+v, which none of %+v explains, after %q", r.Identifier, found, r.states, r.history)
				r.broken = true
				return
			}
			r.states = explained
			r.history = append(r.history, "killed")
		})
	}
	var target counters
	all.Go(func() {
		var err error
		if target, err = count(c.t.Context(), s, c.target.Identifier); err != nil {
			c.ledger.Broken("counters of %s: %v", c.target.Identifier, err)
		}
	})
	all.Wait()
	require.NoError(c.t, s.Close())

	counted := crashAttempts - target.attempts
	looked, proofs := c.looked[c.target.Identifier], int(c.target.proofs.Load())
	if !target.exists || counted < c.target.counted || counted < looked || counted > proofs || target.activations > crashActivations {
		c.ledger.Broken("target %s: the file leaves %+v after %d attempts before, %d wrong proofs looked at and %d sent",
			c.target.Identifier, target, c.target.counted, looked, proofs)
	}
	c.target.counted = counted
}

// count uses a registration up and tells how often it could be used.
func count(ctx context.Context, s *embedded.Store, identifier string) (counters, error) {
	record, found, err := s.Load(ctx, identifier)
	if err != nil || !found || record.Kind == activation.KindSimulated {
		return counters{}, err
	}
	c := counters{exists: true}
	for ; ; c.devices++ {
		if _, ok, err := s.AdmitDevice(ctx, identifier, crashAttempts); err != nil {
			return c, err
		} else if !ok {
			break
		}
	}
	for ; ; c.confirmations++ {
		if _, ok, err := s.AdmitConfirmation(ctx, identifier, crashAttempts, activation.KindMDL); err != nil {
			return c, err
		} else if !ok {
			break
		}
	}
	// Right proofs give their attempt back as long as there are activations left.
	right := true
	for n := byte(1); ; n++ {
		h := activation.Handshake{Generation: record.Generation, Lifetime: time.Minute}
		if _, err := s.PutHandshake(ctx, identifier, h); err != nil {
			return c, err
		}
		token := activation.Token{n, 0xff}
		if _, ok, err := s.Take(ctx, identifier, token, activation.Tag{}, crashAttempts); err != nil {
			return c, err
		} else if !ok {
			return c, nil
		}
		_, ok, err := s.Settle(ctx, identifier, activation.Settlement{
			Generation: record.Generation, Token: token, Proven: right, MaxAttempts: crashAttempts, MaxActivations: crashActivations,
		})
		if err != nil {
			return c, err
		}
		if right = ok; ok {
			c.activations++
		} else {
			c.attempts++
		}
	}
}

// recheck lets the new process take proofs before anyone else uses it: one that an
// earlier process began, of the last registration and of any others. It begins one
// that only the next process gets.
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

// exhaust uses every registration to its end: wrong proofs until one attempt is
// left, with which the right password still counts, and none.
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

func (l *life) exhaust(r *tracked) {
	const most = 2 * (crashAttempts + crashActivations)
	for n := 0; r.usable() && !r.broken && !r.expired(); n++ {
		if n > most {
			l.ledger.Broken("%s can still be used after %q", r.Identifier, r.history)
			return
		}
		// The first proof shows that the registration is there, the others that it
		// burns exactly when it has to: activations are kept for the last attempts.
		nearEnd := slices.ContainsFunc(r.states, func(s state) bool { return s.exists && s.attempts >= crashAttempts-1 })
		activations := 0
		for _, s := range r.states {
			activations = max(activations, s.activations)
		}
		right := n == 0 && activations < crashActivations-1 || nearEnd && len(r.history) > 0 && strings.HasPrefix(r.history[len(r.history)-1], "wrong")
		if _, f := l.exchange(r, right); f != answered {
			return
		}
	}
	for r.deviceCode != "" && !r.broken && !r.expired() && r.entitled() {
		if l.addDevice(r) != answered {
			return
		}
	}
	if r.broken || r.expired() {
		return
	}
	if r.deviceCode != "" && l.addDevice(r) != answered {
		return
	}
	l.exchange(r, true)
}

// checkLog counts the wrong proofs that a process looked at and finds what it
// should not have logged.
func (c *crashes) checkLog(g *gateway) {
	c.t.Helper()
	lines := strings.Split(g.Logs.String(), "\n")
	for i, line := range lines {
		var entry struct{ Level, Msg, Registration, Reason string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			// The kill may have cut the last line.
			if i < len(lines)-1 {
				c.ledger.Broken("log: %s", line)
			}
			continue
		}
		if entry.Level == "error" || entry.Level == "panic" || entry.Level == "fatal" {
			c.ledger.Broken("log: %s", line)
		}
		if entry.Msg == "proof refused" && entry.Reason == "wrong evidence" {
			c.looked[entry.Registration]++
		}
	}
}

// checkTotals checks the sums over all processes, as the authentication server
// and the logs tell them.
func (c *crashes) checkTotals() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for identifier, n := range c.added {
		if n > crashActivations {
			c.ledger.Broken("%s: the authentication server added %d devices, %d activations are allowed", identifier, n, crashActivations)
		}
	}
	for identifier, n := range c.looked {
		if n > crashAttempts {
			c.ledger.Broken("%s: %d wrong proofs were looked at, %d are allowed", identifier, n, crashAttempts)
		}
	}
}

// report tells what the run consisted of.
func (c *crashes) report(kills int) {
	c.t.Helper()
	c.t.Logf("%d kills and %d during a start, %d requests, %d of them without an answer, %d proofs of an earlier process, %d registrations, %d of them attacked together, longest start %v; aimed at %v",
		kills, c.aimed["start"], c.calls, c.unanswered, c.stale, len(c.registrations)+len(c.targets), len(c.targets), c.longest.Round(time.Millisecond), c.aimed)
}
