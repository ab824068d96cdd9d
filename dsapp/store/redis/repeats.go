package redis

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// The string dsapp:rep:{place}:digest is the token of the call (16 bytes) and its sealed
// outcome, which is empty while the call is under way.

// luaKept returns the entry under a key, if there is one.
const luaKept = `
local kept = redis.call('GET', KEYS[#KEYS])
if kept then return {0, kept} end
`

// markScript has KEYS rep. ARGV token lifetime. It is repeatable: the caller knows its token.
func markScript() script {
	return script{repeatable: true, Script: goredis.NewScript(luaKept + `
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
`)}
}

// markAdmittedScript has KEYS reg rep. ARGV those of the script admit, then token lifetime. It
// answers what admit does, or 0 and the entry under rep.
func markAdmittedScript(admit string) script {
	return script{durable: true, Script: goredis.NewScript(luaKept + `
local function admit()
` + admit + `
end
local answer = admit()
if answer[1] == 1 then redis.call('SET', KEYS[2], ARGV[#ARGV - 1], 'PX', ARGV[#ARGV]) end
return answer
`)}
}

// keepScript has KEYS rep. ARGV token outcome lifetime.
func keepScript() script {
	return script{repeatable: true, Script: goredis.NewScript(`
local current = redis.call('GETRANGE', KEYS[1], 0, 15)
if current ~= '' and current ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return {1}
`)}
}

// Mark implements repeat.Store.
func (s *Store) Mark(ctx context.Context, m repeat.Mark) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark")(nil, &err)
	replies, err := s.runAll(ctx, s.markCall(m))
	if err != nil {
		return repeat.Entry{}, false, err
	}
	return keptEntry(replies[0])
}

// MarkOwner implements repeat.Store. Both are in the same slot.
func (s *Store) MarkOwner(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, key string,
) (_ repeat.Entry, _ bool, _ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark_owner")(nil, &err)
	answers, err := s.send(ctx, s.markCall(m), s.ownerCall(kind, key))
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, readError(unavailable(err))
	}
	a, err := scriptReply(answers[0])
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, err
	}
	c, owned, err := ownerAnswer(answers[1], key)
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, err
	}
	e, found, err := keptEntry(a)
	return e, found, c, owned, err
}

// MarkPending implements repeat.Store.
func (s *Store) MarkPending(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, serialNumber string,
) (_ repeat.Entry, _ bool, _ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "mark_pending")(nil, &err)
	replies, err := s.runAll(ctx, s.markCall(m), s.pendingCall(kind, serialNumber))
	if err != nil {
		return repeat.Entry{}, false, nil, readError(err)
	}
	claims, err := pendingAnswer(replies[1])
	if err != nil {
		return repeat.Entry{}, false, nil, err
	}
	e, found, err := keptEntry(replies[0])
	return e, found, claims, err
}

// MarkDevice implements repeat.Store.
func (s *Store) MarkDevice(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_device")(&admitted, &err)
	return s.markAdmitted(ctx, s.scripts.markDevice, m, identifier, maxAttempts)
}

// MarkConfirmation implements repeat.Store.
func (s *Store) MarkConfirmation(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_confirmation")(&admitted, &err)
	args := []any{maxAttempts}
	for _, kind := range kinds {
		args = append(args, string(kind))
	}
	return s.markAdmitted(ctx, s.scripts.markConfirmation, m, identifier, args...)
}

func (s *Store) markAdmitted(
	ctx context.Context, x script, m repeat.Mark, identifier string, args ...any,
) (repeat.Entry, bool, activation.Record, bool, error) {
	keys := []string{s.registrationKey(identifier), s.repeatKey(identifier, m.Digest)}
	a, err := s.run(ctx, x, keys, append(args, m.Token[:], milliseconds(m.Lifetime))...)
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
	defer s.observe.Begin(ctx, "kept")(nil, &err)
	key := s.repeatKey(place, d)
	answers, err := s.send(ctx, call{keys: []string{key}, args: []any{"GETRANGE", key, 0, -1}})
	if err != nil {
		return repeat.Entry{}, false, unavailable(err)
	}
	text, err := answers[0].Text()
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
	defer s.observe.Begin(ctx, "keep")(nil, &err)
	_, err = s.run(ctx, s.scripts.keep, []string{s.repeatKey(m.Place, m.Digest)}, m.Token[:], outcome, milliseconds(max(m.Lifetime, time.Millisecond)))
	return err
}

// Forget implements repeat.Store.
func (s *Store) Forget(ctx context.Context, place string, d repeat.Digest, token repeat.Token) (err error) {
	defer s.observe.Begin(ctx, "forget")(nil, &err)
	_, err = s.run(ctx, s.scripts.release, []string{s.repeatKey(place, d)}, token[:])
	return err
}

func (s *Store) markCall(m repeat.Mark) call {
	return call{
		script: s.scripts.mark, keys: []string{s.repeatKey(m.Place, m.Digest)},
		args: []any{m.Token[:], milliseconds(max(m.Lifetime, time.Millisecond))},
	}
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

// ownerCall is the call of Owner.
func (s *Store) ownerCall(kind ownership.Kind, key string) call {
	// For a missing key, GETRANGE returns an empty string, GET an error of go-redis.
	request := s.claimKey(kind, key)
	return call{keys: []string{request}, args: []any{"GETRANGE", request, 0, -1}}
}

// ownerAnswer returns the claim in the answer to ownerCall.
func ownerAnswer(answer *goredis.Cmd, key string) (ownership.Claim, bool, error) {
	text, err := answer.Text()
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	if text == "" {
		return ownership.Claim{}, false, nil
	}
	token, owner, ok := cutToken(text)
	if !ok {
		return ownership.Claim{}, false, readError(activation.ErrDamaged)
	}
	return ownership.Claim{Key: key, Token: token, Owner: owner}, true, nil
}

// pendingCall is the call of Pending.
func (s *Store) pendingCall(kind ownership.Kind, serialNumber string) call {
	return call{script: s.scripts.listedClaims, keys: []string{s.deviceKey(kind, serialNumber)}, args: []any{ownership.MaxPending}}
}

// pendingAnswer returns the claims in the answer to pendingCall.
func pendingAnswer(a reply) ([]ownership.Claim, error) {
	claims := make([]ownership.Claim, len(a.values))
	for i, value := range a.values {
		text, _ := value.(string)
		c, ok := decodeListed(text)
		if !ok {
			return nil, readError(activation.ErrDamaged)
		}
		claims[i] = c
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
}

func (s *Store) repeatKey(place string, d repeat.Digest) string {
	return s.prefix + ":rep:{" + place + "}:" + hex.EncodeToString(d[:])
}

var _ repeat.Store = (*Store)(nil)
