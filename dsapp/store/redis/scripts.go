package redis

import (
	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// script is a script and how it is sent.
type script struct {
	*goredis.Script

	// repeatable says that it may be sent again when it is unknown whether it has
	// run.
	repeatable bool
	// durable says that Options.WaitReplicas is for what it writes.
	durable bool
}

// scripts holds the scripts of the methods that need one. Each runs as a whole on
// the server that holds its keys, so that several gateway nodes agree, and takes
// the time from that server, so that their clocks need not. Its keys are in one
// slot of a cluster.
//
// Fields of the hash under reg:
//
//	g generation            r attempts reserved       b 1 in a tombstone
//	k kind                  i proofs in flight        t<token> one proof in flight
//	f facts                 a activations             lt token settled last
//	v verifier              n devices to be added     lo its outcome, 1 or 0
//	d data                  c final calls
//	e end of the lifetime in milliseconds of Unix time
//
// Of the kind affinity, n counts the calls to add a device, as c counts the final
// calls: those that an authentication server refused, and those under way.
//
// Fields of the hash under hs:
//
//	1 to 4  a handshake each, as encodeHandshake has it
//	x       what is in these places, in the order in which it was put: of each
//	        handshake its place, its end in milliseconds of Unix time (14 digits),
//	        its source and its application
//	m       until when contention is not told again, in milliseconds of Unix time
//
// The string under own is the token (16 bytes) and the owner. The sorted set under
// dev has an entry for every claim, its token, its key, a semicolon and its owner,
// scored by its end in microseconds of Unix time: claims in the same millisecond
// end one after the other.
//
// The first write of a script is one that the server refuses when its memory is
// used up. Nothing is half done then. A durable script that is repeated writes
// something again, which changes nothing: WAIT is about a connection's last write.
// Take and settle write something in every case: whether there was anything to
// change must not show in the time that WAIT takes. Only what is damaged is left
// alone.
type scripts struct {
	room, create, load, put, take, settle, admitDevice, admitConfirmation, giveBack, remove, secret, replaceSecret script

	claim, release, list, listed, unlist script
}

const (
	// clock defines now, in milliseconds.
	clock = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
	// numbers defines a function that returns the number that text is, or nothing if
	// it is not one that scripts write, or greater than limit. No moment that they
	// write has more than 14 digits.
	numbers = `
local moment = 1e14
local function number(text, limit)
  if text and #text < 16 and (text == '0' or string.find(text, '^[1-9]%d*$')) and tonumber(text) <= limit then
    return tonumber(text)
  end
end
`
	// registration reads the registration under the first key: its generation g, kind
	// k, end e, counters r, i, a, n and c, and b. None of them is there if there is
	// no registration. What no script can have written ends the script. The number
	// is activation.MaxCounter.
	registration = numbers + `
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
	// answer defines a function that returns the record of an answer after a first
	// number.
	answer = `
local function record(first, f, v)
  return {first, g, k, f or '', v or '', math.max(0, e - now)}
end
`
	// handshakes reads the fields x and m under the last key: the handshakes that have
	// not ended, in the order in which they were put, the places that they take, those
	// of handshakes that are gone, and until when nothing is told, 0 if nothing was.
	// What no script can have written ends the script.
	handshakes = `
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
	// tick defines now, in microseconds.
	tick = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
`
	simulated = string(activation.KindSimulated)
	affinity  = string(activation.KindAffinity)
	mdl       = string(activation.KindMDL)
	standard  = string(activation.KindStandard)

	// damaged is what scripts answer about what no script can have written.
	damaged = "DAMAGED"
)

// writes are the two calls that make the key of a room. The second one proves that there
// was memory for the first, and waits for replicas for both.
func (x scripts) writes(key string) []call {
	first := x.room
	first.durable = false
	lifetime := milliseconds(activation.RoomLifetime)
	return []call{
		{script: first, keys: []string{key}, args: []any{roomSize - 1, lifetime}},
		{script: x.room, keys: []string{key}, args: []any{0, lifetime}},
	}
}

func newScripts() scripts {
	return scripts{
		// KEYS room. ARGV offset lifetime. What is not proven must not stay: it may be more
		// than the server has memory for.
		room: script{repeatable: true, durable: true, Script: goredis.NewScript(clock + `
local done = redis.pcall('SETRANGE', KEYS[1], ARGV[1], ' ')
if type(done) == 'table' and done.err then
  redis.call('DEL', KEYS[1])
  return done
end
redis.call('PEXPIREAT', KEYS[1], now + ARGV[2])
return {1}
`)},
		// KEYS reg hs. ARGV generation replaces kind lifetime facts verifier data.
		create: script{repeatable: true, durable: true, Script: goredis.NewScript(clock + registration + answer + `
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
redis.call('PEXPIREAT', KEYS[1], e)
return {1}
`)},
		// KEYS reg.
		load: script{Script: goredis.NewScript(clock + registration + answer + `
if not g then return {0} end
return record(1, unpack(redis.call('HMGET', KEYS[1], 'f', 'v')))
`)},
		// KEYS hs. ARGV handshake lifetime interval. It returns 1 if contention is to be
		// told, which it is once in an interval.
		put: script{Script: goredis.NewScript(clock + numbers + handshakes + `
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
		// KEYS reg hs. ARGV token source maxAttempts room. Room is 1 if a simulated record
		// may be created.
		take: script{durable: true, Script: goredis.NewScript(clock + registration + handshakes + `
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
		settle: script{repeatable: true, durable: true, Script: goredis.NewScript(clock + registration + answer + `
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
local ok = ARGV[3] == '1' and a < tonumber(ARGV[5]) and now < e and (k == '` + mdl + `' or k == '` + standard + `')
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
  redis.call('HDEL', KEYS[1], 'v', 'd')
  redis.call('PEXPIREAT', KEYS[1], e + tonumber(ARGV[6]))
end
if ok then return whole(unpack(values)) end
return {0}
`)},
		// KEYS reg. ARGV maxAttempts.
		admitDevice: script{durable: true, Script: goredis.NewScript(clock + registration + answer + `
if not g or now >= e then return {0} end
if k == '` + affinity + `' and n < tonumber(ARGV[1]) then
  redis.call('HINCRBY', KEYS[1], 'n', 1)
elseif k == '` + mdl + `' and n > 0 then
  redis.call('HINCRBY', KEYS[1], 'n', -1)
else
  return {0}
end
return record(1, redis.call('HGET', KEYS[1], 'f'))
`)},
		// KEYS reg. ARGV maxAttempts kinds…
		admitConfirmation: script{durable: true, Script: goredis.NewScript(clock + registration + answer + `
if not g or now >= e then return {0} end
local known = false
for j = 2, #ARGV do
  if ARGV[j] == k then known = true end
end
if not known or c >= tonumber(ARGV[1]) or a < 1 and k ~= '` + affinity + `' then return {0} end
redis.call('HINCRBY', KEYS[1], 'c', 1)
return record(1, redis.call('HGET', KEYS[1], 'f'))
`)},
		// KEYS reg. ARGV generation counter. Rights of the kind mdl count upwards to the
		// activations: more would be rights that nobody earned. Calls count downwards
		// to 0.
		giveBack: script{Script: goredis.NewScript(registration + `
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
		// KEYS reg hs. ARGV generation.
		remove: script{Script: goredis.NewScript(`
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return {0} end
redis.call('DEL', KEYS[1], KEYS[2])
return {1}
`)},
		// KEYS sim. ARGV candidate.
		secret: script{Script: goredis.NewScript(`
local current = redis.call('GET', KEYS[1])
if current then return {1, current} end
redis.call('SET', KEYS[1], ARGV[1])
return {1, ARGV[1]}
`)},
		// KEYS sim. ARGV current next.
		replaceSecret: script{Script: goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[2])
return {1}
`)},

		// KEYS own. ARGV token owner lifetime.
		claim: script{Script: goredis.NewScript(`
local current = redis.call('GETRANGE', KEYS[1], 0, 15)
if current ~= '' then return {current == ARGV[1] and 1 or 0} end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return {1}
`)},
		// KEYS own. ARGV token.
		release: script{Script: goredis.NewScript(`
if redis.call('GETRANGE', KEYS[1], 0, 15) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {1}
`)},
		// KEYS dev. ARGV entry owner lifetime limit.
		list: script{Script: goredis.NewScript(tick + `
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
		listed: script{Script: goredis.NewScript(tick + `
local entries = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
return {1, unpack(entries)}
`)},
		// KEYS dev. ARGV entry.
		unlist: script{Script: goredis.NewScript(`
for _, e in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(e, 1, #ARGV[1]) == ARGV[1] then redis.call('ZREM', KEYS[1], e) end
end
return {1}
`)},
	}
}
