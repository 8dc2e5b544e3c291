#!lua name=perdure_2
-- Every change of a store is one call of these functions, so it is atomic. The number in their names is the library's: a newer one
-- brings others, beside these. They serve stores of schema 1 and 2. Each session's keys lie in its shard; KEYS[1] only says which, all names are made of what comes in ARGV.
--
--   Ph  hash    name -> head, as bytes: what an append compares
--   Pb  hash    name -> the log's first version
--   Pc  hash    name -> when it was created
--   Pt  hash    name -> tags
--   Pp  hash    name -> the version of a purge's stub
--   Pa  hash    name -> when it is due: 8 bytes, the highest first
--   Pd  sorted set of those 8 bytes and the name: what is due, in order
--   Po  hash    name -> control
--   Pz  hash    name -> about how many bytes its records take
--   Pm  string  the least version of a writer
--   Pn:TENANT   sorted set of ids, for listing
--   Pf  stream  name and version of every record, in the order of their commits
--   Pw  string  the place in the stream from which the next sweep goes on
--   Pl:NAME     list of records, the first at the version in Pb
--   Pk:NAME     hash: idempotency key -> version and request
--   Ps:NAME     hash: version -> snapshot, the newest two

local SNAPSHOTS_KEPT = 2
local PAGE_BYTES = 4 * 1024 * 1024
local STEP = 64
local SWEPT = 2
local SWEPT_MOST = 10000

-- The log's first version and its records' number; nil where there is none.
local function extent(shard, name)
  local first = redis.call('HGET', shard .. 'b', name)
  if not first then return nil end
  return tonumber(first), redis.call('LLEN', shard .. 'l:' .. name)
end

-- The record of a version, or false.
local function record_at(shard, name, version)
  local first, count = extent(shard, name)
  if not first or version < first or version >= first + count then return false end
  return redis.call('LINDEX', shard .. 'l:' .. name, version - first)
end

-- The least version of a writer, where this one is below it.
local function too_old(shard, writer)
  local least = redis.call('GET', shard .. 'm')
  if least and tonumber(least) > tonumber(writer) then return tonumber(least) end
  return nil
end

-- Set cells: each '' to leave it, or its value; '-' ends the first two, and '+' begins a control that is set.
local function set_cells(shard, name, due, control, size)
  if due ~= '' then
    local before = redis.call('HGET', shard .. 'a', name)
    if before then redis.call('ZREM', shard .. 'd', before .. name) end
    if due == '-' then
      redis.call('HDEL', shard .. 'a', name)
    else
      redis.call('HSET', shard .. 'a', name, due)
      redis.call('ZADD', shard .. 'd', 0, due .. name)
    end
  end
  if control == '-' then
    redis.call('HDEL', shard .. 'o', name)
  elseif control ~= '' then
    redis.call('HSET', shard .. 'o', name, string.sub(control, 2))
  end
  if size == '0' then
    redis.call('HDEL', shard .. 'z', name)
  elseif size ~= '' then
    redis.call('HSET', shard .. 'z', name, size)
  end
end

-- Raise where a key that cells need is of another type.
local function check_cells(shard, due, control, size)
  if due ~= '' then
    redis.call('HLEN', shard .. 'a')
    redis.call('ZCARD', shard .. 'd')
  end
  if control ~= '' then redis.call('HLEN', shard .. 'o') end
  if size ~= '' then redis.call('HLEN', shard .. 'z') end
end

-- A session's index row: head, time, tags, due, control, size; '' for a cell that is not set.
local function row_of(shard, name)
  local function cell(key) return redis.call('HGET', shard .. key, name) or '' end
  return {redis.call('HGET', shard .. 'h', name), redis.call('HGET', shard .. 'c', name), cell('t'), cell('a'), cell('o'), cell('z')}
end

local function versions_of(shard, name)
  local versions = redis.call('HKEYS', shard .. 's:' .. name)
  table.sort(versions, function(left, right) return tonumber(left) > tonumber(right) end)
  return versions
end

-- Raise, before anything is written, where a key that a write needs is of another type: what was written before an error stays written.
local function check(shard, name, held, tags)
  local count = redis.call('LLEN', shard .. 'l:' .. name)
  redis.call('XLEN', shard .. 'f')
  if tags ~= '' then redis.call('HLEN', shard .. 't') end
  if held then return end
  if count > 0 then error('there are records without a head') end
  redis.call('HLEN', shard .. 'b')
  redis.call('HLEN', shard .. 'c')
  redis.call('HLEN', shard .. 'k:' .. name)
  redis.call('ZCARD', shard .. 'n:' .. string.sub(name, 1, string.find(name, '\31', 1, true) - 1))
end

local function store(shard, name, held, head, created, tags, marks, version, records)
  redis.call('HSET', shard .. 'h', name, head)
  if not held then
    local cut = string.find(name, '\31', 1, true)
    redis.call('HSET', shard .. 'b', name, version)
    redis.call('HSET', shard .. 'c', name, created)
    redis.call('ZADD', shard .. 'n:' .. string.sub(name, 1, cut - 1), 0, string.sub(name, cut + 1))
  end
  if tags == '{}' then
    redis.call('HDEL', shard .. 't', name)
  elseif tags ~= '' then
    redis.call('HSET', shard .. 't', name, tags)
  end
  for number, record in ipairs(records) do
    redis.call('RPUSH', shard .. 'l:' .. name, record)
    redis.call('XADD', shard .. 'f', '*', 'n', name, 'v', version + number - 1)
  end
  for number = 1, #marks, 2 do
    redis.call('HSET', shard .. 'k:' .. name, marks[number], marks[number + 1])
  end
end

-- Take entries out of the stream whose records are gone: looks at SWEPT for each record that was dropped, going on where the last sweep
-- ended and round again, so what is left of the dead stays a share of the living. At most SWEPT_MOST at once: nobody else is served meanwhile.
local function sweep(shard, dropped)
  local place, budget, known = redis.call('GET', shard .. 'w') or '-', math.min(SWEPT * dropped + STEP, SWEPT_MOST), {}
  while budget > 0 do
    local count = math.min(budget, 1000)
    local entries, dead = redis.call('XRANGE', shard .. 'f', place, '+', 'COUNT', count), {}
    for _, entry in ipairs(entries) do
      local name, version = entry[2][2], tonumber(entry[2][4])
      if not known[name] then known[name] = {extent(shard, name)} end
      local first, records = known[name][1], known[name][2]
      if not first or version < first or version >= first + records then dead[#dead + 1] = entry[1] end
    end
    if #dead > 0 then redis.call('XDEL', shard .. 'f', unpack(dead)) end
    budget = budget - count
    if #entries < count then
      redis.call('DEL', shard .. 'w')
      return
    end
    place = '(' .. entries[#entries][1]
  end
  redis.call('SET', shard .. 'w', place)
end

-- The writer's version, then for each session: shard, name, expected head, new head, time, tags, due, control, size, its own key, first
-- version, number of keys, keys with values, number of records, records. Answers {1} stored, {0, head} lost, {2, head, known}, {3} another
-- key of it was applied before, {4, words} its keys are damaged, {5, least} the writer is too old; but for {1} nothing was written for it.
local function append(keys, args)
  local at, answers = 1, {}
  local function take()
    at = at + 1
    return args[at - 1]
  end
  local function take_all(count)
    local taken = {}
    for number = 1, count do taken[number] = take() end
    return taken
  end
  local writer = take()
  while at <= #args do
    local shard, name, expected, head, created, tags = take(), take(), take(), take(), take(), take()
    local due, control, size, own = take(), take(), take(), take()
    local version = tonumber(take())
    local marks = take_all(2 * tonumber(take()))
    local records = take_all(tonumber(take()))
    local function one()
      local least = too_old(shard, writer)
      if least then return {5, least} end
      local held = redis.call('HGET', shard .. 'h', name)
      local known, taken = false, false
      if own ~= '' then known = redis.call('HGET', shard .. 'k:' .. name, own) end
      for number = 1, #marks, 2 do
        taken = taken or redis.call('HEXISTS', shard .. 'k:' .. name, marks[number]) == 1
      end
      if known then return {2, held, known} end
      if (held or '') ~= expected then return {0, held} end
      if taken then return {3} end
      check(shard, name, held, tags)
      check_cells(shard, due, control, size)
      store(shard, name, held, head, created, tags, marks, version, records)
      set_cells(shard, name, due, control, size)
      return {1}
    end
    local done, answer = pcall(one)
    answers[#answers + 1] = done and answer or {4, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  return answers
end

-- Index row, newest snapshot up to a version ('' for none), and the records behind it.
local function load(keys, args)
  local shard, name, upto = args[1], args[2], tonumber(args[3])
  local head = redis.call('HGET', shard .. 'h', name)
  if not head then return false end
  local first, count = extent(shard, name)
  local last = math.min(upto or first + count, first + count - 1)
  local start, version, snapshot = first, '', ''
  for _, found in ipairs(versions_of(shard, name)) do
    if (not upto or tonumber(found) <= upto) and tonumber(found) >= first - 1 then
      start, version, snapshot = tonumber(found) + 1, found, redis.call('HGET', shard .. 's:' .. name, found)
      break
    end
  end
  local records = {}
  if start <= last then records = redis.call('LRANGE', shard .. 'l:' .. name, start - first, last - first) end
  return {row_of(shard, name), version, snapshot, records}
end

-- Records between two versions, both excluded, in either order: at most `limit`, and about PAGE_BYTES.
local function read(keys, args)
  local shard, name, after, limit, reverse = args[1], args[2], tonumber(args[3]), tonumber(args[5]), args[6] == '1'
  local first, count = extent(shard, name)
  if not first then return {} end
  local low = math.max(after + 1, first) - first
  local high = math.min((tonumber(args[4]) or first + count) - 1, first + count - 1) - first
  local found, size = {}, 0
  while low <= high and #found < limit do
    local step = math.min(STEP, limit - #found, high - low + 1)
    local from = reverse and high - step + 1 or low
    local part = redis.call('LRANGE', shard .. 'l:' .. name, from, from + step - 1)
    for number = 1, #part do
      local record = part[reverse and #part - number + 1 or number]
      found[#found + 1] = record
      size = size + #record
      if size >= PAGE_BYTES then return found end
    end
    if reverse then high = high - step else low = low + step end
  end
  return found
end

-- Writes answer the least writer version below 0 where the writer is too old.
-- Keep a snapshot if the record of its version begins as it should, and is no purge's stub; `size` ('' for none) becomes that of the row.
local function put_snapshot(keys, args)
  local shard, name, version, proof, snapshot, size = args[1], args[2], tonumber(args[4]), args[5], args[6], args[7]
  local least = too_old(shard, args[3])
  if least then return -least end
  local record = record_at(shard, name, version)
  if not record or string.sub(record, 1, #proof) ~= proof then return 0 end
  if redis.call('HGET', shard .. 'p', name) == args[4] then return 0 end
  redis.call('HSET', shard .. 's:' .. name, args[4], snapshot)
  set_cells(shard, name, '', '', size)
  for place, found in ipairs(versions_of(shard, name)) do
    if place > SNAPSHOTS_KEPT then redis.call('HDEL', shard .. 's:' .. name, found) end
  end
  return 1
end

-- Drop what lies below a version, if the anchor's record begins as it should; `all`: every snapshot too.
local function truncate(keys, args)
  local shard, name, below, anchor, proof, all = args[1], args[2], tonumber(args[4]), tonumber(args[5]), args[6], args[7] == '1'
  local least = too_old(shard, args[3])
  if least then return -least end
  local record = record_at(shard, name, anchor)
  if not record or string.sub(record, 1, #proof) ~= proof then return 0 end
  local first = extent(shard, name)
  if below > first then
    redis.call('LTRIM', shard .. 'l:' .. name, below - first, -1)
    redis.call('HSET', shard .. 'b', name, args[4])
    sweep(shard, below - first)
  end
  for _, found in ipairs(versions_of(shard, name)) do
    if all or tonumber(found) < below - 1 then redis.call('HDEL', shard .. 's:' .. name, found) end
  end
  return 1
end

-- Leave the stub alone of a session whose head is still this one.
local function purge(keys, args)
  local shard, name, expected, version, stub = args[1], args[2], args[4], args[5], args[6]
  local least = too_old(shard, args[3])
  if least then return -least end
  if redis.call('HGET', shard .. 'h', name) ~= expected then return 0 end
  local _, count = extent(shard, name)
  redis.call('DEL', shard .. 'l:' .. name, shard .. 'k:' .. name, shard .. 's:' .. name)
  redis.call('RPUSH', shard .. 'l:' .. name, stub)
  redis.call('HSET', shard .. 'b', name, version)
  redis.call('HSET', shard .. 'p', name, version)
  redis.call('HDEL', shard .. 't', name)
  set_cells(shard, name, '-', '-', '0')
  sweep(shard, count - 1)
  return 1
end

-- Change cells of a row whose head and time that it is due ('' for none) are these still.
local function change_index(keys, args)
  local shard, name, head, due = args[1], args[2], args[4], args[5]
  local least = too_old(shard, args[3])
  if least then return -least end
  if redis.call('HGET', shard .. 'h', name) ~= head or (redis.call('HGET', shard .. 'a', name) or '') ~= due then return 0 end
  check_cells(shard, args[6], args[7], args[8])
  set_cells(shard, name, args[6], args[7], args[8])
  return 1
end

-- From now on refuse writers below a version, in this shard.
local function require_writer(keys, args)
  local key = args[1] .. 'm'
  if tonumber(redis.call('GET', key) or '0') < tonumber(args[2]) then redis.call('SET', key, args[2]) end
  return 1
end

-- Replace the store's header, if it is what it was.
local function swap_header(keys, args)
  local key = args[1] .. 'store'
  if redis.call('GET', key) ~= args[2] then return 0 end
  redis.call('SET', key, args[3])
  return 1
end

-- Ids of a tenant between two bounds, each with its row.
local function scan(keys, args)
  local shard, tenant, rows = args[1], args[2], {}
  for _, id in ipairs(redis.call('ZRANGEBYLEX', shard .. 'n:' .. tenant, args[3], args[4], 'LIMIT', 0, args[5])) do
    rows[#rows + 1] = {id, row_of(shard, tenant .. '\31' .. id)}
  end
  return rows
end

-- What is due between two bounds: the time and name, and the row.
local function scan_due(keys, args)
  local shard, rows = args[1], {}
  for _, member in ipairs(redis.call('ZRANGEBYLEX', shard .. 'd', args[2], args[3], 'LIMIT', 0, args[4])) do
    rows[#rows + 1] = {member, row_of(shard, string.sub(member, 9))}
  end
  return rows
end

-- What was committed behind a place in the stream: place, name and record ('' where it was dropped).
local function feed(keys, args)
  local shard, changes, size = args[1], {}, 0
  for _, entry in ipairs(redis.call('XRANGE', shard .. 'f', args[2], '+', 'COUNT', args[3])) do
    local name = entry[2][2]
    local record = record_at(shard, name, tonumber(entry[2][4])) or ''
    changes[#changes + 1] = {entry[1], name, record}
    size = size + #record
    if size >= PAGE_BYTES then break end
  end
  return changes
end

redis.register_function('perdure_2_append', append)
redis.register_function('perdure_2_put_snapshot', put_snapshot)
redis.register_function('perdure_2_truncate', truncate)
redis.register_function('perdure_2_purge', purge)
redis.register_function('perdure_2_change_index', change_index)
redis.register_function('perdure_2_require_writer', require_writer)
redis.register_function('perdure_2_swap_header', swap_header)
redis.register_function{function_name = 'perdure_2_load', callback = load, flags = {'no-writes'}}
redis.register_function{function_name = 'perdure_2_read', callback = read, flags = {'no-writes'}}
redis.register_function{function_name = 'perdure_2_scan', callback = scan, flags = {'no-writes'}}
redis.register_function{function_name = 'perdure_2_scan_due', callback = scan_due, flags = {'no-writes'}}
redis.register_function{function_name = 'perdure_2_feed', callback = feed, flags = {'no-writes'}}
