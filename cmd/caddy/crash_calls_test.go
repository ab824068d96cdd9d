package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// fate is what became of a request.
type fate int

const (
	unsent fate = iota
	unanswered
	answered
)

// call sends a request. The ledger counts it, except that the caller judges an answer.
//
// A request that got no connection was not sent and does not count. A request whose process was
// killed before the answer was read is neither lost nor wrong: it counts as refused, and its
// effect is unknown. So is that of a request for which the machine was too slow.
func (l *life) call(path, key string, body testbed.Object) (f fate, status int, answer string) {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(l.t.Context(), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { l.trigger.hit(path) },
	})
	began := time.Now()
	status, answer, err = l.g.Try(ctx, path, key, string(encoded))
	if err != nil && !connected.Load() {
		return unsent, 0, ""
	}
	l.ledger.Sent()
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	switch {
	case err == nil && testbed.Late(status, time.Since(began)):
		l.ledger.Late()
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
	case testbed.Refused:
		return turnedDown, nil
	case testbed.NotFound:
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

// operate makes one call for a registration and judges the answer. If it was granted, its
// result is decoded into into.
func (l *life) operate(r *tracked, name string, do operation, path string, body testbed.Object, into any) (decision, fate) {
	before := r.states
	f, status, text := l.call(path, testbed.FrontEndKey, body)
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

// register makes a registration. It returns nil unless that is acknowledged.
func (l *life) register() (*tracked, fate) {
	f, status, text := l.call(testbed.RegisterPath, testbed.BackEndKey, testbed.Object{
		"userID": crashUser(int(l.users.Add(1)) % crashUsers), "domain": testbed.Domain, "staticPassword": testbed.StaticPassword,
	})
	if f != answered {
		return nil, f
	}
	r := &tracked{states: []state{{exists: true}}}
	seen, err := result(status, text, &r.Registration)
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

// exchanging is an exchange between its two calls.
type exchanging struct {
	client                   *srp.Client
	public, server, evidence []byte
	right                    bool
	begun                    *life
}

// begin makes the first call of an exchange, which changes no state.
func (l *life) begin(r testbed.Registration, right bool) (*exchanging, fate) {
	password := r.Password
	if !right {
		password = "wrong-password"
	}
	client, err := l.srp.NewClient(r.Identifier, password)
	if err != nil {
		panic(err)
	}
	x := &exchanging{client: client, public: client.Public(), right: right, begun: l}
	f, status, text := l.call(testbed.EphemeralKeyPath, testbed.FrontEndKey,
		testbed.Object{"registrationIdentifier": r.Identifier, "clientEphemeralPublicKey": testbed.UpperHex(x.public)})
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

// prove makes the second call of an exchange that this or another process began.
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
	seen, f := l.operate(r, name, do, testbed.ActivationDataPath,
		testbed.Object{"registrationIdentifier": r.Identifier, "clientEvidenceMessage": testbed.UpperHex(x.evidence)}, &proof)
	if seen != granted || r.broken {
		return seen, f
	}
	// Values that are no hexadecimal digits cannot be opened.
	unhex := func(digits string) []byte { b, _ := hex.DecodeString(digits); return b }
	key, err := x.client.Confirm(unhex(proof.ServerEvidenceMessage))
	if err == nil {
		var message []byte
		message, err = srp.NewSession(key, x.public, x.server).Open(seal.LicenseActivationMessage, seal.Ciphertext{
			Data: unhex(proof.EncryptedLicenseActivationMessage), Counter: unhex(proof.EncryptedCounter), MAC: unhex(proof.MAC),
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

// open makes the first call for a registration that only this goroutine uses.
func (l *life) open(r *tracked, right bool) (*exchanging, fate) {
	x, f := l.begin(r.Registration, right)
	if f == answered {
		r.waiting = x
	}
	return x, f
}

// exchange makes both calls of an exchange.
func (l *life) exchange(r *tracked, right bool) (decision, fate) {
	x, f := l.open(r, right)
	if f != answered {
		return "", f
	}
	return l.prove(r, x)
}

// addDevice makes the third call of an activation.
func (l *life) addDevice(r *tracked) fate {
	// Answered or not: from now on the authentication server may wait for the signature of the
	// new device.
	r.signature = ""
	var added struct{ InstanceActivationMessage string }
	seen, f := l.operate(r, "device", deviceAdded, testbed.AddDevicePath,
		testbed.Object{"registrationIdentifier": r.Identifier, "deviceCode": r.deviceCode}, &added)
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
	_, f := l.operate(r, "confirmation", confirmed, testbed.ActivatePath,
		testbed.Object{"registrationIdentifier": r.Identifier, "signature": r.signature}, new(testbed.Object))
	return f
}

// keeper plays phones, the bank's site and an attacker.
type keeper struct {
	choice *rand.Rand
	open   []*tracked
	// begun is an exchange of the registration of that has not ended.
	begun *exchanging
	of    *tracked
}

// chance is true once in n times on average.
func (w *keeper) chance(n int) bool { return w.choice.IntN(n) == 0 }

// work makes one or two calls and reports whether the process answers.
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

// guess sends a wrong proof for the target.
func (l *life) guess() bool {
	x, f := l.begin(l.target.Registration, false)
	if f != answered {
		return false
	}
	l.target.proofs.Add(1)
	f, status, text := l.call(testbed.ActivationDataPath, testbed.FrontEndKey,
		testbed.Object{"registrationIdentifier": l.target.Identifier, "clientEvidenceMessage": testbed.UpperHex(x.evidence)})
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

func (l *life) exhaust(r *tracked) {
	const most = 2 * (crashAttempts + crashActivations)
	for n := 0; r.usable() && !r.broken && !r.expired(); n++ {
		if n > most {
			l.ledger.Broken("%s can still be used after %q", r.Identifier, r.history)
			return
		}
		// The first proof shows that the registration is there. The others show that it burns
		// with exactly the last attempt: for that one an activation is kept.
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
