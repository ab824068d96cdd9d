package redis

import (
	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// script is a Lua script with the rules for sending it.
type script struct {
	*lua

	// repeatable says that running the script a second time changes nothing, so that it
	// may be sent again when its answer was lost.
	repeatable bool
	// durable says that the script's caller waits for Options.WaitReplicas replicas.
	durable bool
}

// lua is the source of a script.
type lua struct {
	source string
	// hash is the SHA-1 of the source, by which a server knows the script.
	hash any
}

func newLua(source string) *lua {
	return &lua{source: source, hash: goredis.NewScript(source).Hash()}
}

// call returns the call of x with the arguments args, of which the first are keys.
func (x script) call(keys int, args ...any) call {
	return call{script: x, args: append(append(make([]any, 0, scriptKeys+len(args)), "evalsha", x.hash, keys), args...)}
}

// scripts are the scripts of the Store's methods. A server runs a script atomically. That,
// and that all keys of a script are in one slot of a cluster, makes every method with one
// script a transaction for all gateway nodes. The scripts use the clock of the server, so
// that the clocks of the gateway nodes need not agree.
//
// The hash dsapp:{id}:reg has these fields:
//
//	g generation            r attempts reserved       b 1 in a tombstone
//	k kind                  i proofs in flight        t<token> one proof in flight
//	f facts                 a activations             lt token that was settled last
//	v verifier              n devices to be added     lo its outcome, 1 or 0
//	d data                  c final calls
//	o answer
//	e end of the lifetime in milliseconds of Unix time
//
// For the kind affinity, n counts the calls to add a device and c the final calls that an
// authentication server refused or that are in flight.
//
// The hash dsapp:{id}:hs has these fields:
//
//	1 to 4  one handshake each, in the form of encodeHandshake
//	x       the index: for each handshake, oldest first, its field (1 digit), its end in
//	        milliseconds of Unix time (14 digits), its source (16 bytes) and its
//	        application (16 bytes)
//	m       the time until which contention is not reported again, in milliseconds of
//	        Unix time
//
// The string dsapp:own:kind:{key} is the token of the claim (16 bytes) and the owner. The
// sorted set dsapp:dev:kind:{serial} has one member for every claim: its token, its key, a
// semicolon and its owner. The score is the end of the claim in microseconds of Unix time,
// so that claims of the same millisecond end in the order in which they were made.
//
// The first write of every script is a command that the server refuses when its memory is
// full, so that a script is never carried out in part.
//
// A durable script that is repeated writes something although it changes nothing, because
// WAIT waits for the last write of a connection. For the same reason take and settle write
// something in every case: the time that WAIT takes must not tell an outsider whether
// anything changed. Only damaged values are left as they are.
type scripts struct {
	reserve script

	create, load, put, take, settle, admitDevice, admitConfirmation, giveBack, inspect, burn, remove, getOrSet, replaceSecret script

	claim, release, listClaim, listedClaims, unlistClaim script

	mark, markOwner, markPending, markDevice, markConfirmation, keep, keepClaim, keepRelease, keepRemove script
}

const (
	// luaNow defines now in milliseconds of Unix time.
	luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
	// luaNumber defines number(text, limit), which returns the number in text. It returns
	// nil unless text has the form in which scripts write numbers and the number is at
	// most limit. moment is the limit for times: they have at most 14 digits.
	luaNumber = `
local moment = 1e14
local function number(text, limit)
  if text and #text < 16 and (text == '0' or string.find(text, '^[1-9]%d*$')) and tonumber(text) <= limit then
    return tonumber(text)
  end
end
`
	// luaRegistration reads the fields g, k, b, e, r, i, a, n and c of the registration
	// under the first key into variables of these names. All are nil if there is no
	// registration. If a value cannot have been written by a script, the script ends with
	// an error. The number is activation.MaxCounter.
	luaRegistration = luaNumber + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'b', 'e', 'r', 'i', 'a', 'n', 'c')
local g, k, b, e = o[1], o[2], o[3], number(o[4], moment)
local most = 1000000
local r, i, a, n, c = number(o[5], most), number(o[6], most), number(o[7], most), number(o[8], most), number(o[9], most)
local present = false
for field = 1, 9 do present = present or o[field] end
if present then
  local exchange = k == '` + mdl + `' or k == '` + standard + `' or k == '` + simulated + `'
  if not (g and #g == 16 and (exchange or k == '` + affinity + `') and (not b or b == '1') and e and r and i and a and n and c)
    or i > r or exchange and n > a then
    return redis.error_reply('` + damaged + `')
  end
end
`
	// luaRecord defines record(first, f, v), which returns an answer that has the number
	// first and then the members of the record.
	luaRecord = `
local function record(first, f, v)
  return {first, g, k, f or '', v or '', math.max(0, e - now)}
end
`
	// luaHandshakes reads the fields x and m under the last key. It defines waiting, the
	// handshakes that have not ended, oldest first; taken, the fields of these; gone,
	// the fields of handshakes that have ended; and quiet, the field m or 0. If a value cannot
	// have been written by a script, the script ends with an error.
	luaHandshakes = `
local hs = KEYS[#KEYS]
local o = redis.call('HMGET', hs, 'x', 'm')
local index, quiet = o[1] or '', number(o[2] or '0', moment)
local waiting, gone, used, taken = {}, {}, {}, {}
local whole = quiet and #index % 47 == 0
for at = 1, #index, 47 do
  local place, ends = string.match(index, '^([1-4])(%d%d%d%d%d%d%d%d%d%d%d%d%d%d)', at)
  whole = whole and place and not used[place]
  if not whole then break end
  used[place], ends = true, tonumber(ends)
  if ends > now then
    waiting[#waiting + 1] = {place = place, ends = ends, entry = string.sub(index, at, at + 46),
      source = string.sub(index, at + 15, at + 30), application = string.sub(index, at + 31, at + 46)}
    taken[place] = true
  else
    gone[#gone + 1] = place
  end
end
if not whole then return redis.error_reply('` + damaged + `') end
`
	// luaNowMicroseconds defines now in microseconds of Unix time.
	luaNowMicroseconds = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
`
	luaAdmitDevice = luaNow + luaRegistration + luaRecord + `
if not g or now >= e then return {0} end
if k == '` + affinity + `' and n < tonumber(ARGV[1]) then
  redis.call('HINCRBY', KEYS[1], 'n', 1)
elseif k == '` + mdl + `' and n > 0 then
  redis.call('HINCRBY', KEYS[1], 'n', -1)
else
  return {0}
end
return record(1, redis.call('HGET', KEYS[1], 'f'))
`
	luaAdmitConfirmation = luaNow + luaRegistration + luaRecord + `
if not g or now >= e then return {0} end
local known = false
for j = 2, #ARGV do
  if ARGV[j] == k then known = true end
end
if not known or c >= tonumber(ARGV[1]) or a < 1 and k ~= '` + affinity + `' then return {0} end
redis.call('HINCRBY', KEYS[1], 'c', 1)
return record(1, redis.call('HGET', KEYS[1], 'f'))
`
	// luaClaim has KEYS own. ARGV token owner lifetime.
	luaClaim = `
local current = redis.call('GETRANGE', KEYS[1], 0, 15)
if current ~= '' then return {current == ARGV[1] and 1 or 0} end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return {1}
`
	// luaRelease has the first key own or rep. ARGV[1] token. It removes what has that token.
	luaRelease = `
if redis.call('GETRANGE', KEYS[1], 0, 15) == ARGV[1] then redis.call('DEL', KEYS[1]) end
`
	// luaRemove has the first keys reg hs. ARGV[1] generation.
	luaRemove = `
if redis.call('HGET', KEYS[1], 'g') == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
`
	// luaListed has the first key dev. The last argument is the limit. It defines entries, the
	// claims that have not ended.
	luaListed = `
local entries = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, ARGV[#ARGV])
`
	simulated = string(activation.KindSimulated)
	affinity  = string(activation.KindAffinity)
	mdl       = string(activation.KindMDL)
	standard  = string(activation.KindStandard)

	// damaged is the error that scripts return for a value that no script can have
	// written.
	damaged = "DAMAGED"
)

// placeholderWrites returns the two calls that write a placeholder. The second call succeeds
// only if the server had memory for the first. It also waits for the replicas, for both.
func (x scripts) placeholderWrites(key string) []call {
	first := x.reserve
	first.durable = false
	lifetime := milliseconds(activation.RoomLifetime)
	return []call{
		first.call(1, key, placeholderSize-1, lifetime),
		x.reserve.call(1, key, 0, lifetime),
	}
}

func newScripts() scripts {
	return scripts{
		// KEYS placeholder. ARGV offset lifetime. If the write fails, the placeholder must
		// not stay: it may be what exceeds the server's memory limit.
		reserve: script{repeatable: true, durable: true, lua: newLua(luaNow + `
local done = redis.pcall('SETRANGE', KEYS[1], ARGV[1], ' ')
if type(done) == 'table' and done.err then
  redis.call('DEL', KEYS[1])
  return done
end
redis.call('PEXPIREAT', KEYS[1], now + ARGV[2])
return {1}
`)},
		// KEYS reg hs. ARGV generation replaces kind lifetime facts verifier data answer.
		create: script{repeatable: true, durable: true, lua: newLua(luaNow + luaRegistration + luaRecord + `
if g and k ~= '` + simulated + `' then
  if g == ARGV[1] then
    redis.call('HSET', KEYS[1], 'g', g)
    return {1}
  end
  if g ~= ARGV[2] then return record(0, unpack(redis.call('HMGET', KEYS[1], 'f', 'v'))) end
end
redis.call('HSET', KEYS[1], 'g', ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2])
e = now + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'k', ARGV[3], 'f', ARGV[5], 'v', ARGV[6], 'd', ARGV[7],
  'e', e, 'r', 0, 'i', 0, 'a', 0, 'n', 0, 'c', 0)
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'o', ARGV[8]) end
redis.call('PEXPIREAT', KEYS[1], e)
return {1}
`)},
		// KEYS reg.
		load: script{lua: newLua(luaNow + luaRegistration + luaRecord + `
if not g then return {0} end
return record(1, unpack(redis.call('HMGET', KEYS[1], 'f', 'v')))
`)},
		// KEYS hs. ARGV handshake lifetime interval. The answer is 1 if contention is to be
		// reported, which happens at most once in an interval.
		put: script{lua: newLua(luaNow + luaNumber + luaHandshakes + `
local source, application = string.sub(ARGV[1], 1, 16), string.sub(ARGV[1], 17, 32)
local contended, own = false, nil
for j, h in ipairs(waiting) do
  if h.source == source then own = j end
  contended = contended or h.source ~= source or h.application ~= application
end
if not own and #waiting == 4 then own = 1 end
local place = own and table.remove(waiting, own).place
for j = 1, 4 do
  if not place and not taken[tostring(j)] then place = tostring(j) end
end
local ends = now + tonumber(ARGV[2])
local last, kept = ends, {}
for j, h in ipairs(waiting) do
  last, kept[j] = math.max(last, h.ends), h.entry
end
index = table.concat(kept) .. place .. string.format('%014.0f', ends) .. source .. application
redis.call('HSET', hs, 'x', index, place, ARGV[1])
contended = contended and quiet <= now
if contended then
  quiet = now + tonumber(ARGV[3])
  redis.call('HSET', hs, 'm', quiet)
end
for _, old in ipairs(gone) do
  if old ~= place then redis.call('HDEL', hs, old) end
end
redis.call('PEXPIREAT', hs, math.max(last, quiet))
return {contended and 1 or 0}
`)},
		// KEYS reg hs. ARGV token source maxAttempts maySimulate. maySimulate is 1 if a
		// simulated record may be created.
		take: script{durable: true, lua: newLua(luaNow + luaRegistration + luaHandshakes + `
local own = #waiting
for j, h in ipairs(waiting) do
  if h.source == ARGV[2] then own = j end
end
local h, max, flight = table.remove(waiting, own), tonumber(ARGV[3]), 't' .. ARGV[1]
local ok, text, generation, sim, lifetime
if h then
  text = redis.call('HGET', hs, h.place)
  if text then
    generation, sim, lifetime = string.sub(text, 33, 48), string.sub(text, 49, 49), number(string.match(text, '^(%d+);', 50), moment)
  end
  if not lifetime or sim ~= '0' and sim ~= '1' then return redis.error_reply('` + damaged + `') end
  if g then
    ok = g == generation and not b and now < e and r < max and redis.call('HEXISTS', KEYS[1], flight) == 0
  else
    ok = sim == '1' and ARGV[4] == '1' and max > 0 and lifetime > 0
  end
end
if ok then
  redis.call('HINCRBY', KEYS[1], 'r', 1)
  redis.call('HINCRBY', KEYS[1], 'i', 1)
  redis.call('HSET', KEYS[1], flight, 1)
  if not g then
    e = now + lifetime
    redis.call('HSET', KEYS[1], 'g', generation, 'k', '` + simulated + `', 'e', e, 'a', 0, 'n', 0, 'c', 0)
    redis.call('PEXPIREAT', KEYS[1], e)
  end
end
local kept = {}
for j, other in ipairs(waiting) do kept[j] = other.entry end
redis.call('HSET', hs, 'x', table.concat(kept))
if #kept == 0 then gone[#gone + 1] = 'x' end
if h then gone[#gone + 1] = h.place end
if #gone > 0 then redis.call('HDEL', hs, unpack(gone)) end
if ok then return {1, text, h.ends - now} end
return {0}
`)},
		// KEYS reg. ARGV generation token proven maxAttempts maxActivations tombstone.
		settle: script{repeatable: true, durable: true, lua: newLua(luaNow + luaRegistration + luaRecord + `
local function nothing()
  redis.call('HSET', KEYS[1], 'w', 1)
  redis.call('HDEL', KEYS[1], 'w')
end
local function whole(f, v, d)
  local x = record(1, f, v)
  x[7] = d or ''
  return x
end
if g ~= ARGV[1] then
  nothing()
  return {0}
end
local flight = 't' .. ARGV[2]
if redis.call('HEXISTS', KEYS[1], flight) == 0 then
  nothing()
  local last = redis.call('HMGET', KEYS[1], 'lt', 'lo')
  if last[1] == ARGV[2] and last[2] == '1' and not b then
    return whole(unpack(redis.call('HMGET', KEYS[1], 'f', 'v', 'd')))
  end
  return {0}
end
if i < 1 then return redis.error_reply('` + damaged + `') end
local ok = ARGV[3] == '1' and not b and a < tonumber(ARGV[5]) and now < e and (k == '` + mdl + `' or k == '` + standard + `')
local values = ok and redis.call('HMGET', KEYS[1], 'f', 'v', 'd')
redis.call('HSET', KEYS[1], 'lt', ARGV[2], 'lo', ok and 1 or 0)
redis.call('HDEL', KEYS[1], flight)
local flying = redis.call('HINCRBY', KEYS[1], 'i', -1)
local reserved = redis.call('HINCRBY', KEYS[1], 'r', ok and -1 or 0)
if ok then
  redis.call('HINCRBY', KEYS[1], 'a', 1)
  redis.call('HINCRBY', KEYS[1], 'n', 1)
end
if reserved >= tonumber(ARGV[4]) and flying == 0 then
  redis.call('HSET', KEYS[1], 'b', 1)
  redis.call('HDEL', KEYS[1], 'v', 'd', 'o')
  redis.call('PEXPIREAT', KEYS[1], e + tonumber(ARGV[6]))
end
if ok then return whole(unpack(values)) end
return {0}
`)},
		// KEYS reg. ARGV maxAttempts.
		admitDevice: script{durable: true, lua: newLua(luaAdmitDevice)},
		// KEYS reg. ARGV maxAttempts kinds…
		admitConfirmation: script{durable: true, lua: newLua(luaAdmitConfirmation)},
		// KEYS reg. ARGV generation counter. For the kind mdl, n counts rights to add a
		// device; giving one back adds 1, up to the number of activations. Otherwise the
		// counter counts calls, and giving one back subtracts 1, down to 0.
		giveBack: script{lua: newLua(luaRegistration + `
if g ~= ARGV[1] then return {0} end
if ARGV[2] == 'c' and c > 0 then
  redis.call('HINCRBY', KEYS[1], 'c', -1)
elseif ARGV[2] == 'n' and k == '` + affinity + `' and n > 0 then
  redis.call('HINCRBY', KEYS[1], 'n', -1)
elseif ARGV[2] == 'n' and k == '` + mdl + `' and n < a then
  redis.call('HINCRBY', KEYS[1], 'n', 1)
end
return {1}
`)},
		// KEYS reg.
		inspect: script{lua: newLua(luaNow + luaRegistration + luaRecord + `
if not g then return {0} end
local x = record(1, redis.call('HGET', KEYS[1], 'f'))
for _, value in ipairs({b and 1 or 0, r, i, a, n, c}) do x[#x + 1] = value end
return x
`)},
		// KEYS reg hs. ARGV maxAttempts tombstone. The counters are such that nothing is
		// admitted, also after one has been given back.
		burn: script{repeatable: true, durable: true, lua: newLua(luaNow + luaRegistration + luaRecord + `
if not g or k == '` + simulated + `' then return {0} end
if k == '` + affinity + `' then n, c = most, most else a, n = 0, 0 end
redis.call('HSET', KEYS[1], 'b', 1, 'r', math.max(r, tonumber(ARGV[1])), 'a', a, 'n', n, 'c', c)
redis.call('HDEL', KEYS[1], 'v', 'd', 'o')
redis.call('DEL', KEYS[2])
redis.call('PEXPIREAT', KEYS[1], e + tonumber(ARGV[2]))
return record(1, redis.call('HGET', KEYS[1], 'f'))
`)},
		// KEYS reg hs. ARGV generation.
		remove: script{lua: newLua(luaRemove + `
return {1}
`)},
		// KEYS sim or format. ARGV candidate.
		getOrSet: script{lua: newLua(`
local current = redis.call('GET', KEYS[1])
if current then return {1, current} end
redis.call('SET', KEYS[1], ARGV[1])
return {1, ARGV[1]}
`)},
		// KEYS sim. ARGV current next.
		replaceSecret: script{lua: newLua(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[2])
return {1}
`)},

		mark:             markScript(),
		markOwner:        markOwnerScript(),
		markPending:      markPendingScript(),
		markDevice:       markAdmittedScript(luaAdmitDevice),
		markConfirmation: markAdmittedScript(luaAdmitConfirmation),
		keep:             keepScript(),
		keepClaim:        keepClaimScript(),
		keepRelease:      keepReleaseScript(),
		keepRemove:       keepRemoveScript(),

		claim: script{lua: newLua(luaClaim)},
		// KEYS own or rep. ARGV token.
		release: script{lua: newLua(luaRelease + `
return {1}
`)},
		// KEYS dev. ARGV entry owner lifetime limit.
		listClaim: script{lua: newLua(luaNowMicroseconds + `
for _, e in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(e, 1, #ARGV[1]) == ARGV[1] then return {1} end
end
redis.call('ZADD', KEYS[1], now + ARGV[3] * 1000, ARGV[1] .. ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[4])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], math.ceil(last[2] / 1000))
return {1}
`)},
		// KEYS dev. ARGV limit.
		listedClaims: script{lua: newLua(luaNowMicroseconds + luaListed + `
return {1, unpack(entries)}
`)},
		// KEYS dev. ARGV entry.
		unlistClaim: script{lua: newLua(`
for _, e in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(e, 1, #ARGV[1]) == ARGV[1] then redis.call('ZREM', KEYS[1], e) end
end
return {1}
`)},
	}
}
