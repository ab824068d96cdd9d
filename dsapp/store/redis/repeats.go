package redis

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// The string dsapp:rep:{place}:digest is the token of the call (16 bytes) and its sealed
// outcome, which is empty while most calls are under way.

const (
	// luaMark has the last key rep. ARGV token lifetime outcome. It defines kept, the entry under
	// rep. If there is none, kept is false and the mark is stored.
	luaMark = `
local kept = redis.call('GET', KEYS[#KEYS])
if not kept then redis.call('SET', KEYS[#KEYS], ARGV[1] .. ARGV[3], 'PX', ARGV[2]) end
`
	// luaKeep has the last key rep and the last arguments token outcome lifetime.
	luaKeep = `
local current = redis.call('GETRANGE', KEYS[#KEYS], 0, 15)
if current == '' or current == ARGV[#ARGV - 2] then
  redis.call('SET', KEYS[#KEYS], ARGV[#ARGV - 2] .. ARGV[#ARGV - 1], 'PX', ARGV[#ARGV])
end
return {1}
`
)

// The scripts that mark are repeatable: the caller knows its token.

// markScript has KEYS rep. ARGV those of luaMark. It answers 1, or 0 and the entry.
func markScript() script {
	return script{repeatable: true, lua: newLua(luaMark + `
if kept then return {0, kept} end
return {1}
`)}
}

// markOwnerScript has KEYS own rep. ARGV those of luaMark. It answers 1 and the claim, or 0, the claim
// and the entry.
func markOwnerScript() script {
	return script{repeatable: true, lua: newLua(`
local claim = redis.call('GETRANGE', KEYS[1], 0, -1)
` + luaMark + `
if kept then return {0, claim, kept} end
return {1, claim}
`)}
}

// markPendingScript has KEYS dev rep. ARGV those of luaMark, then limit. It answers 1 and the list,
// or 0, the list and the entry.
func markPendingScript() script {
	return script{repeatable: true, lua: newLua(luaNowMicroseconds + luaListed + luaMark + `
if kept then entries[#entries + 1] = kept end
return {kept and 0 or 1, unpack(entries)}
`)}
}

// markAdmittedScript has KEYS reg rep. ARGV those of the script admit, then token lifetime. It
// answers what admit does, or 0 and the entry under rep.
func markAdmittedScript(admit string) script {
	return script{durable: true, lua: newLua(`
local kept = redis.call('GET', KEYS[2])
if kept then return {0, kept} end
local function admit()
` + admit + `
end
local answer = admit()
if answer[1] == 1 then redis.call('SET', KEYS[2], ARGV[#ARGV - 1], 'PX', ARGV[#ARGV]) end
return answer
`)}
}

// keepScript has KEYS rep. ARGV those of luaKeep.
func keepScript() script {
	return script{repeatable: true, lua: newLua(luaKeep)}
}

// keepClaimScript has KEYS own rep. ARGV token owner lifetime, then token outcome lifetime for rep.
// It answers what claim does.
func keepClaimScript() script {
	return script{lua: newLua(`
local function claim()
` + luaClaim + `
end
local answer = claim()
local current = redis.call('GETRANGE', KEYS[2], 0, 15)
if answer[1] == 1 and (current == '' or current == ARGV[4]) then
  redis.call('SET', KEYS[2], ARGV[4] .. ARGV[5], 'PX', ARGV[6])
elseif answer[1] == 0 and current == ARGV[4] then
  redis.call('DEL', KEYS[2])
end
return answer
`)}
}

// keepReleaseScript has KEYS own rep. ARGV token, then those of luaKeep. A server whose memory is
// full refuses no write after the removal.
func keepReleaseScript() script {
	return script{repeatable: true, lua: newLua(luaRelease + luaKeep)}
}

// keepRemoveScript has KEYS reg hs rep. ARGV generation, then those of luaKeep. A server whose
// memory is full refuses no write after the removal.
func keepRemoveScript() script {
	return script{repeatable: true, lua: newLua(luaRemove + luaKeep)}
}

// Mark implements repeat.Store.
func (s *Store) Mark(ctx context.Context, m repeat.Mark) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark").End(nil, &err)
	a, err := s.run(ctx, s.scripts.mark.call(1, s.repeatKey(m.Place, m.Digest), m.Token[:], endsIn(m.Lifetime), m.Outcome))
	if err != nil {
		return repeat.Entry{}, false, err
	}
	return keptEntry(a)
}

// MarkOwner implements repeat.Store. The mark and the claim are in one slot, so that one script
// writes and reads them.
func (s *Store) MarkOwner(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, key string,
) (_ repeat.Entry, _ bool, _ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark_owner").End(nil, &err)
	a, err := s.run(ctx, s.scripts.markOwner.call(2, s.claimKey(kind, key), s.repeatKey(m.Place, m.Digest), m.Token[:], endsIn(m.Lifetime), m.Outcome))
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, readError(err)
	}
	if len(a.values) == 0 {
		return repeat.Entry{}, false, ownership.Claim{}, false, unavailable(errUnexpectedAnswer)
	}
	text, _ := a.values[0].(string)
	c, owned, err := decodeClaim(key, text)
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, err
	}
	a.values = a.values[1:]
	e, found, err := keptEntry(a)
	return e, found, c, owned, err
}

// MarkPending implements repeat.Store.
func (s *Store) MarkPending(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, serialNumber string,
) (repeat.Entry, bool, []ownership.Claim, error) {
	e, found, claims, err := s.markListed(ctx, m, kind, serialNumber)
	if err == nil && !found {
		claims = s.settled(ctx, claims, kind, serialNumber)
	}
	return e, found, claims, err
}

// markListed makes a mark and returns the claims in the list of a device. Both are in one slot.
func (s *Store) markListed(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, serialNumber string,
) (_ repeat.Entry, _ bool, _ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "mark_pending").End(nil, &err)
	a, err := s.run(ctx, s.scripts.markPending.call(2, s.deviceKey(kind, serialNumber), s.repeatKey(m.Place, m.Digest),
		m.Token[:], endsIn(m.Lifetime), m.Outcome, ownership.MaxPending))
	if err != nil {
		return repeat.Entry{}, false, nil, readError(err)
	}
	listed := len(a.values)
	if !a.ok && listed > 0 {
		listed--
	}
	claims, err := decodeClaims(a.values[:listed])
	if err != nil {
		return repeat.Entry{}, false, nil, err
	}
	a.values = a.values[listed:]
	e, found, err := keptEntry(a)
	return e, found, claims, err
}

// MarkDevice implements repeat.Store.
func (s *Store) MarkDevice(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_device").End(&admitted, &err)
	return s.markAdmitted(ctx, s.scripts.markDevice, m, identifier, maxAttempts)
}

// MarkConfirmation implements repeat.Store.
func (s *Store) MarkConfirmation(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_confirmation").End(&admitted, &err)
	return s.markAdmitted(ctx, s.scripts.markConfirmation, m, identifier, maxAttempts, kinds...)
}

func (s *Store) markAdmitted(
	ctx context.Context, x script, m repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (repeat.Entry, bool, activation.Record, bool, error) {
	c := x.call(2, s.registrationKey(identifier), s.repeatKey(identifier, m.Digest), maxAttempts)
	for _, kind := range kinds {
		c.args = append(c.args, string(kind))
	}
	c.args = append(c.args, m.Token[:], milliseconds(m.Lifetime))
	a, err := s.run(ctx, c)
	if err != nil {
		return repeat.Entry{}, false, activation.Record{}, false, err
	}
	if !a.ok {
		if len(a.values) == 0 {
			return repeat.Entry{}, false, activation.Record{}, false, nil
		}
		e, found, err := keptEntry(a)
		return e, found, activation.Record{}, false, err
	}
	r, err := a.record(identifier)
	return repeat.Entry{}, false, r, err == nil, err
}

// Kept implements repeat.Store.
func (s *Store) Kept(ctx context.Context, place string, d repeat.Digest) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "kept").End(nil, &err)
	sent, err := s.send(ctx, call{args: []any{"GETRANGE", s.repeatKey(place, d), 0, -1}})
	if err != nil {
		return repeat.Entry{}, false, unavailable(err)
	}
	text, err := sent[0].answer.Text()
	if err != nil {
		return repeat.Entry{}, false, unavailable(err)
	}
	if text == "" {
		return repeat.Entry{}, false, nil
	}
	return decodeKept(text)
}

// Keep implements repeat.Store.
func (s *Store) Keep(ctx context.Context, m repeat.Mark, outcome []byte) (err error) {
	defer s.observe.Begin(ctx, "keep").End(nil, &err)
	_, err = s.run(ctx, s.keepCall(m, outcome))
	return err
}

// KeepClaim implements repeat.Store. The claim and the outcome are in one slot, so that one script
// writes both.
func (s *Store) KeepClaim(
	ctx context.Context, m repeat.Mark, outcome []byte, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration,
) (claimed bool, err error) {
	defer s.observe.Begin(ctx, "keep_claim").End(&claimed, &err)
	ends := endsIn(lifetime)
	x := s.scripts.keepClaim.call(2, s.claimKey(kind, c.Key), s.repeatKey(m.Place, m.Digest), c.Token[:], c.Owner, ends, m.Token[:], outcome, endsIn(m.Lifetime))
	return s.claim(ctx, x, kind, c, serialNumber, ends)
}

// KeepRelease implements repeat.Store. The claim and the outcome are in one slot, unless the call is
// about the device.
func (s *Store) KeepRelease(
	ctx context.Context, m repeat.Mark, outcome []byte, kind ownership.Kind, key string, token ownership.Token, serialNumber string,
) error {
	request, unlist := s.claimKey(kind, key), s.unlistCall(kind, key, token, serialNumber)
	// Repeats wait for the outcome, and not for the end of the claim.
	keep := s.keepCall(m, outcome)
	if m.Place == key {
		return s.makeLater(ctx, "keep_release", []call{keep},
			s.scripts.keepRelease.call(2, request, s.repeatKey(key, m.Digest), token[:], m.Token[:], outcome, endsIn(m.Lifetime)), unlist)
	}
	return s.makeLater(ctx, "keep_release", []call{keep}, s.scripts.release.call(1, request, token[:]), unlist, keep)
}

// KeepRemove implements repeat.Store. The registration and the outcome are in one slot.
func (s *Store) KeepRemove(ctx context.Context, m repeat.Mark, outcome []byte, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "keep_remove").End(nil, &err)
	_, err = s.run(ctx, s.scripts.keepRemove.call(3, s.registrationKey(identifier), s.handshakesKey(identifier), s.repeatKey(m.Place, m.Digest),
		generation[:], m.Token[:], outcome, endsIn(m.Lifetime)))
	return err
}

func (s *Store) keepCall(m repeat.Mark, outcome []byte) call {
	return s.scripts.keep.call(1, s.repeatKey(m.Place, m.Digest), m.Token[:], outcome, endsIn(m.Lifetime))
}

// endsIn returns a lifetime in milliseconds, at least one.
func endsIn(lifetime time.Duration) int64 { return milliseconds(max(lifetime, time.Millisecond)) }

// Forget implements repeat.Store.
func (s *Store) Forget(ctx context.Context, place string, d repeat.Digest, token repeat.Token) (err error) {
	defer s.observe.Begin(ctx, "forget").End(nil, &err)
	_, err = s.run(ctx, s.scripts.release.call(1, s.repeatKey(place, d), token[:]))
	return err
}

// keptEntry returns the entry in the reply of a script that marks.
func keptEntry(a reply) (repeat.Entry, bool, error) {
	if a.ok {
		return repeat.Entry{}, false, nil
	}
	if len(a.values) != 1 {
		return repeat.Entry{}, false, unavailable(errUnexpectedAnswer)
	}
	text, _ := a.values[0].(string)
	return decodeKept(text)
}

// decodeKept returns the entry that a value holds.
func decodeKept(text string) (repeat.Entry, bool, error) {
	var e repeat.Entry
	if len(text) < len(e.Token) {
		return e, false, unavailable(activation.ErrDamaged)
	}
	if n := copy(e.Token[:], text); n < len(text) {
		e.Outcome = []byte(text[n:])
	}
	return e, true, nil
}

func (s *Store) repeatKey(place string, d repeat.Digest) string {
	var digits [2 * len(d)]byte
	hex.Encode(digits[:], d[:])
	return s.prefix + ":rep:{" + place + "}:" + string(digits[:])
}

var _ repeat.Store = (*Store)(nil)
