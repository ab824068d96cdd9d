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
//	g generation            r attempts reserved       b present in a tombstone
//	k kind                  i proofs in flight        t<token> one proof in flight
//	f facts                 a activations             lt token settled last
//	v verifier              n devices to be added     lo its outcome, 1 or 0
//	d data                  c confirmations
//	e end of the lifetime in milliseconds of Unix time
//
// The string under hs is the generation (16 bytes), 1 or 0 for simulated, the
// lifetime of the simulated record in milliseconds, a semicolon, the state.
//
// The string under own is the token (16 bytes) and the owner. The sorted set under
// dev has an entry for every claim, its token, its key, a semicolon and its owner,
// scored by its end in microseconds of Unix time: claims in the same millisecond
// end one after the other.
//
// The first write of a script is one that the server refuses when its memory is
// used up. Nothing is half done then. A durable script that is repeated writes
// something again, which changes nothing: WAIT is about a connection's last write.
type scripts struct {
	create, load, take, settle, admitDevice, admitConfirmation, giveBack, remove, secret, replaceSecret script

	claim, release, list, listed, unlist script
}

const (
	// clock defines now, in milliseconds.
	clock = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
	// answer defines a function that returns the record of an answer's fields
	// after a first number.
	answer = `
local function record(first, g, k, f, v, e)
  return {first, g, k, f or '', v or '', math.max(0, tonumber(e) - now)}
end
`
	// tick defines now, in microseconds.
	tick = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
`
	simulated = string(activation.KindSimulated)
	affinity  = string(activation.KindAffinity)
	mdl       = string(activation.KindMDL)
)

func newScripts() scripts {
	return scripts{
		// KEYS reg hs. ARGV generation replaces kind lifetime facts verifier data.
		create: script{repeatable: true, durable: true, Script: goredis.NewScript(clock + answer + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'f', 'v', 'e')
if o[1] and o[2] ~= '` + simulated + `' then
  if o[1] == ARGV[1] then
    redis.call('HSET', KEYS[1], 'g', o[1])
    return {1}
  end
  if o[1] ~= ARGV[2] then return record(0, o[1], o[2], o[3], o[4], o[5]) end
end
redis.call('HSET', KEYS[1], 'g', ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2])
local e = now + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'k', ARGV[3], 'f', ARGV[5], 'v', ARGV[6], 'd', ARGV[7],
  'e', e, 'r', 0, 'i', 0, 'a', 0, 'n', 0, 'c', 0)
redis.call('PEXPIREAT', KEYS[1], e)
return {1}
`)},
		// KEYS reg.
		load: script{Script: goredis.NewScript(clock + answer + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'f', 'v', 'e')
if not o[1] then return {0} end
return record(1, o[1], o[2], o[3], o[4], o[5])
`)},
		// KEYS reg hs. ARGV token maxAttempts room. Room is 1 if a simulated record
		// may be created.
		take: script{durable: true, Script: goredis.NewScript(clock + `
local h = redis.call('GET', KEYS[2])
if not h then return {0} end
local left = redis.call('PTTL', KEYS[2])
local generation, sim = string.sub(h, 1, 16), string.sub(h, 17, 17) == '1'
local lifetime = tonumber(string.sub(h, 18, string.find(h, ';', 18, true) - 1))
local max = tonumber(ARGV[2])
local o = redis.call('HMGET', KEYS[1], 'g', 'e', 'r', 'b')
local ok
if o[1] then
  ok = o[1] == generation and not o[4] and now < tonumber(o[2]) and tonumber(o[3]) < max
    and redis.call('HEXISTS', KEYS[1], 't' .. ARGV[1]) == 0
else
  ok = sim and ARGV[3] == '1' and max > 0 and lifetime > 0
end
if not ok then
  redis.call('DEL', KEYS[2])
  return {0}
end
redis.call('HINCRBY', KEYS[1], 'r', 1)
redis.call('HINCRBY', KEYS[1], 'i', 1)
redis.call('HSET', KEYS[1], 't' .. ARGV[1], 1)
if not o[1] then
  local e = now + lifetime
  redis.call('HSET', KEYS[1], 'g', generation, 'k', '` + simulated + `', 'e', e, 'a', 0, 'n', 0, 'c', 0)
  redis.call('PEXPIREAT', KEYS[1], e)
end
redis.call('DEL', KEYS[2])
return {1, h, left}
`)},
		// KEYS reg. ARGV generation token proven maxAttempts maxActivations tombstone.
		settle: script{repeatable: true, durable: true, Script: goredis.NewScript(clock + answer + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'f', 'v', 'e', 'd', 'a', 'lt', 'lo', 'b')
if o[1] ~= ARGV[1] then return {0} end
local function whole()
  local r = record(1, o[1], o[2], o[3], o[4], o[5])
  r[7] = o[6] or ''
  return r
end
local flight = 't' .. ARGV[2]
if redis.call('HEXISTS', KEYS[1], flight) == 0 then
  if o[8] == ARGV[2] and o[9] == '1' and not o[10] then
    redis.call('HSET', KEYS[1], 'lt', o[8])
    return whole()
  end
  return {0}
end
local ok = ARGV[3] == '1' and tonumber(o[7]) < tonumber(ARGV[5]) and now < tonumber(o[5]) and o[2] ~= '` + simulated + `'
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
  redis.call('PEXPIREAT', KEYS[1], tonumber(o[5]) + tonumber(ARGV[6]))
end
if ok then return whole() end
return {0}
`)},
		// KEYS reg.
		admitDevice: script{Script: goredis.NewScript(clock + answer + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'f', 'e', 'n')
if not o[1] or now >= tonumber(o[4]) then return {0} end
if o[2] ~= '` + affinity + `' then
  if o[2] ~= '` + mdl + `' or tonumber(o[5]) < 1 then return {0} end
  redis.call('HINCRBY', KEYS[1], 'n', -1)
end
return record(1, o[1], o[2], o[3], nil, o[4])
`)},
		// KEYS reg. ARGV maxAttempts kinds…
		admitConfirmation: script{Script: goredis.NewScript(clock + answer + `
local o = redis.call('HMGET', KEYS[1], 'g', 'k', 'f', 'e', 'a', 'c')
if not o[1] or now >= tonumber(o[4]) then return {0} end
local known = false
for i = 2, #ARGV do
  if ARGV[i] == o[2] then known = true end
end
if not known then return {0} end
if o[2] ~= '` + affinity + `' then
  if tonumber(o[5]) < 1 or tonumber(o[6]) >= tonumber(ARGV[1]) then return {0} end
  redis.call('HINCRBY', KEYS[1], 'c', 1)
end
return record(1, o[1], o[2], o[3], nil, o[4])
`)},
		// KEYS reg. ARGV generation counter step. Rights count upwards to the
		// activations: more would be rights that nobody earned. Calls count
		// downwards to 0. Only for the kind mdl are there ever fewer rights than
		// activations, so that no other kind gets one back.
		giveBack: script{Script: goredis.NewScript(`
local o = redis.call('HMGET', KEYS[1], 'g', ARGV[2], 'a')
if o[1] ~= ARGV[1] then return {0} end
local step = tonumber(ARGV[3])
local after = tonumber(o[2]) + step
if after < 0 or step > 0 and after > tonumber(o[3]) then return {0} end
redis.call('HINCRBY', KEYS[1], ARGV[2], step)
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
