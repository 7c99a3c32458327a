-- THE CACHE MACHINE of cachelib/item.py for Redis: the same rules, in the same order. Read the two side by side.
--
-- KEYS[i]: a name. ARGV[1]: now_ms. ARGV[i + 1]: the operation on KEYS[i], as ops.py packs it. Of one fill there may
-- be three more, see the first lines below.
-- The items are those of envelope.py. Versions, floors, tokens and the store's times are 64 bits and stay
-- strings of 8 bytes: Lua's numbers are doubles, and its `<` on strings asks the locale. Times in ms are
-- numbers where one reckons with them (below 2^53). No struct, bit or cmsgpack: fakeredis has none.

local byte, char, sub, floor, call = string.byte, string.char, string.sub, math.floor, redis.call

local LEASE_MS_MAX, LEASE_LIVES = 60000, 4
local LIFE_MS_MAX = 400 * 86400000 -- what the server is told; the item itself says what was asked
local HEADER_BYTES, HEADER_OF_OP = 68, 58
local MAGIC = '\202\001\000'
local ZERO = '\000\000\000\000\000\000\000\000'
local NONE, VALUE, ABSENCE = 0, 1, 2

local GET, FILL, PUT, RAISE_FLOOR, REVOKE, CLAIM, RELEASE = 1, 2, 3, 4, 5, 6, 7
local HIT, LEASED, HELD, BELOW_FLOOR, STORED, LEASE_LOST, SUPERSEDED = 1, 2, 3, 4, 5, 6, 7
local RAISED, TOMBSTONE, REVOKED, CLAIMED, RELEASED, NO_OP = 8, 9, 10, 11, 12, 13

-- A fill that its client has judged itself, by item.py (talks.py): ARGV[3] is the item that it was judged upon,
-- ARGV[4] the header of what becomes of it, ARGV[5] its life. Where the item still is just that, the judgement holds
-- and nothing else is looked at: to make the functions below takes longer than this. Else, and where there is no
-- memory, they decide. It stands first for that reason.
if ARGV[5] and call('GETRANGE', KEYS[1], 0, HEADER_BYTES) == ARGV[3] then
  local done = redis.pcall('SET', KEYS[1], ARGV[4] .. sub(ARGV[2], HEADER_OF_OP + 1), 'PX', ARGV[5])
  if not (type(done) == 'table' and done.err) then return { STORED } end
end

local now = tonumber(ARGV[1])

-- numbers --------------------------------------------------------------------------------------------------

local function less(a, b) -- two strings of 8 bytes, as unsigned numbers
  if a == b or b == ZERO then return false end
  for i = 1, 8 do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x < y end
  end
  return false
end

local function num(s)
  local a, b, c, d, e, f, g, h = byte(s, 1, 8)
  return ((((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g) * 256 + h
end

local function u64(n)
  local high, low = floor(n / 4294967296), n % 4294967296
  return char(floor(high / 16777216), floor(high / 65536) % 256, floor(high / 256) % 256, high % 256,
    floor(low / 16777216), floor(low / 65536) % 256, floor(low / 256) % 256, low % 256)
end

local function has(flags, bit) return floor(flags / bit) % 2 == 1 end

-- items and operations as tables ---------------------------------------------------------------------------

local function new_item()
  return { kind = NONE, void = false, known = false, gone = false, version = ZERO, floor = ZERO, soft = ZERO,
    as_of = ZERO, lease = ZERO, lease_until = ZERO, stale_until = ZERO, expires = ZERO, new = true }
end

local function read(name) -- nil where there is none, or bytes that are no item (I12; then true behind it)
  local h = call('GETRANGE', name, 0, HEADER_BYTES) -- one more than a header: is there a payload?
  if #h < HEADER_BYTES or sub(h, 1, 3) ~= MAGIC then return nil, #h > 0 end
  local flags = byte(h, 4)
  local kind = flags % 4
  if flags > 31 or kind > ABSENCE or (kind ~= VALUE and #h > HEADER_BYTES) then return nil, true end
  return { name = name, kind = kind, void = has(flags, 4), known = has(flags, 8), gone = has(flags, 16),
    version = sub(h, 5, 12), floor = sub(h, 13, 20), soft = sub(h, 21, 28), as_of = sub(h, 29, 36),
    lease = sub(h, 37, 44), lease_until = sub(h, 45, 52), stale_until = sub(h, 53, 60), expires = sub(h, 61, 68) }
end

local function header(item)
  local flags = item.kind + (item.void and 4 or 0) + (item.known and 8 or 0) + (item.gone and 16 or 0)
  return MAGIC .. char(flags) .. item.version .. item.floor .. item.soft .. item.as_of
    .. item.lease .. item.lease_until .. item.stale_until .. item.expires
end

local function operation(s)
  local flags = byte(s, 2)
  return { code = byte(s, 1), kind = flags % 4, create = has(flags, 4), delete = has(flags, 8),
    asks_version = has(flags, 16), asks_as_of = has(flags, 32),
    token = sub(s, 3, 10), version = sub(s, 11, 18), as_of = sub(s, 19, 26), life = num(sub(s, 27, 34)),
    soft = num(sub(s, 35, 42)), stale = num(sub(s, 43, 50)), tombstone = num(sub(s, 51, 58)), packed = s }
end

local function bytes_of(item) -- as it stands on the server; nothing for one that does not
  if not item.name then return '' end
  return call('GET', item.name)
end

-- what is asked of an item ---------------------------------------------------------------------------------

local function fresh(item) return item.kind ~= NONE and not item.void and not less(item.version, item.floor) end

local function serves(item, op)
  if not fresh(item) then return false end -- I3
  if not op.asks_version and not op.asks_as_of then return true end
  return (op.asks_version and not less(item.version, op.version)) or (op.asks_as_of and not less(item.as_of, op.as_of))
end

local function leased(item) -- I4: it only carries load
  if item.lease == ZERO then return false end
  local left = num(item.lease_until) - now
  return left > 0 and left <= LEASE_MS_MAX
end

local function refresh_due(item) return item.soft ~= ZERO and now >= num(item.soft) and not leased(item) end

-- shared steps (at the end in item.py; Lua wants them first) -----------------------------------------------

local function live(item, life)
  if now + life > num(item.expires) then item.expires, item.longer = u64(now + life), true end
  item.changed = true
  return item
end

local function grant(item, op)
  item.lease, item.lease_until = op.token, u64(now + math.min(op.life, LEASE_MS_MAX))
  item.changed = true
  if fresh(item) then return item end -- keeps its end: else refreshes that fail would serve it for ever
  return live(item, LEASE_LIVES * op.life)
end

local function stale(item, op)
  if fresh(item) then item.stale_until = u64(now + op.stale) end
  return live(item, op.stale)
end

local function filled(op, version, known, gone) -- an item with the content of a fill or a put
  local item = new_item()
  item.kind, item.known, item.version, item.floor, item.gone = op.kind, known, version, version, gone
  item.soft = op.soft ~= 0 and u64(now + op.soft) or ZERO
  item.as_of, item.expires = op.as_of, u64(now + op.life)
  if op.kind == VALUE then item.payload = sub(op.packed, HEADER_OF_OP + 1) end
  return item
end

-- one function an operation: what is there afterwards (nil: nothing), and the answer ------------------------

local function get(item, op)
  if not item then return grant(new_item(), op), { LEASED, '' } end
  if serves(item, op) and not refresh_due(item) then return item, { HIT, bytes_of(item) } end
  if leased(item) then return item, { HELD, bytes_of(item) } end
  local before = bytes_of(item)
  return grant(item, op), { LEASED, before }
end

local function fill(item, op)
  -- I2, I4: a lease that ended and that nobody took since still counts: the item is the same.
  if not item or op.token == ZERO or item.lease ~= op.token then return item, LEASE_LOST end
  local version, absent = op.version, op.kind == ABSENCE
  if version == ZERO and absent and item.gone then version = item.floor end -- I5
  if less(version, item.floor) then -- I3; a token is used once: the next reader need not wait for this lease to end
    item.lease, item.lease_until, item.changed = ZERO, ZERO, true
    return item, { BELOW_FLOOR, item.floor }
  end
  return filled(op, version, op.version ~= ZERO, absent and item.gone), STORED -- I1: the floor was just compared
end

local function hides_a_create(item, create) return create and (item.kind == ABSENCE or item.gone) end

-- A create without a version raises no floor against a load that saw no row yet, so its lease has to go.
local function may_hide_a_create(item) return item.lease ~= ZERO or hides_a_create(item, true) end

local function revoke(item, op, only_for_create)
  if not item or (only_for_create and not may_hide_a_create(item)) then return item, NO_OP end
  stale(item, op)
  item.void, item.floor, item.gone, item.lease, item.lease_until = true, ZERO, false, ZERO, ZERO -- I1: as if evicted
  return item, REVOKED
end

local function raise_floor(item, op)
  if not item then
    if op.tombstone == 0 then return nil, NO_OP end
    local tombstone = live(new_item(), op.tombstone)
    tombstone.floor, tombstone.gone = op.version, op.delete
    return tombstone, TOMBSTONE
  end
  if less(item.floor, op.version) then -- I1
    stale(item, op)
    item.floor, item.gone = op.version, op.delete
    return live(item, op.tombstone), RAISED
  end
  if hides_a_create(item, op.create) then return revoke(item, op, false) end
  return item, NO_OP
end

local function put_has_ground(item, op) -- I2
  local compared = item.known and not item.void and item.kind ~= NONE
  if compared and not less(item.version, op.version) then return false end
  return compared or (op.token ~= ZERO and item.lease == op.token)
end

local function put(item, op)
  if item and put_has_ground(item, op) and not less(op.version, item.floor) then
    return filled(op, op.version, true, op.kind == ABSENCE), STORED
  end
  -- A put that may not store still knows that everything older is stale.
  local after, answer = raise_floor(item, op)
  if answer == NO_OP and item then answer = SUPERSEDED end
  return after, answer
end

local function release(item, op)
  if not item or op.token == ZERO or item.lease ~= op.token then return item, NO_OP end
  item.lease, item.lease_until, item.changed = ZERO, ZERO, true
  return item, RELEASED
end

local function apply(item, op)
  if op.code == GET then return get(item, op) end
  if op.code == FILL then return fill(item, op) end
  if op.code == PUT then return put(item, op) end
  if op.code == RAISE_FLOOR then return raise_floor(item, op) end
  if op.code == REVOKE then return revoke(item, op, op.create) end
  if op.code == CLAIM then return grant(item or new_item(), op), CLAIMED end
  return release(item, op)
end

-- keeping it -----------------------------------------------------------------------------------------------

local function life_of(item) -- what the server is told
  return string.format('%.0f', math.max(1, math.min(num(item.expires) - now, LIFE_MS_MAX)))
end

local function write(name, item)
  if item.new then return redis.pcall('SET', name, header(item) .. (item.payload or ''), 'PX', life_of(item)) end
  local done = redis.pcall('SETRANGE', name, 0, header(item)) -- the payload stays where it is
  if item.longer and not (type(done) == 'table' and done.err) then call('PEXPIRE', name, life_of(item)) end
  return done
end

-- A full server that may not evict refuses to keep anything (OOM) but can still drop. Who had to make something
-- void drops it: as if evicted. Who wanted to keep something is told what an eviction right after would mean.
local INSTEAD = { [FILL] = -LEASE_LOST, [PUT] = -REVOKED, [RAISE_FLOOR] = -REVOKED, [REVOKE] = -REVOKED,
  [CLAIM] = -CLAIMED, [RELEASE] = -NO_OP }

local function voids(op) return op.code == PUT or op.code == RAISE_FLOOR or op.code == REVOKE end

local function refused(name, op, answer)
  if voids(op) then call('UNLINK', name) end
  if op.code == GET then return { -LEASED, answer[2] } end -- a lease that nobody keeps: its fill is refused
  return INSTEAD[op.code]
end

local answers = {}
for i, name in ipairs(KEYS) do
  local op = operation(ARGV[i + 1])
  local before, unreadable = read(name)
  local item, answer = apply(before, op)
  if unreadable and not item and voids(op) then
    call('UNLINK', name) -- another program may be able to read it, and must not find it fresh
  elseif item and (item.new or item.changed) then
    local done = write(name, item)
    if type(done) == 'table' and done.err then
      if not string.find(done.err, 'OOM', 1, true) then return done end
      answer = refused(name, op, answer)
    end
  end
  answers[i] = answer
end
return answers
