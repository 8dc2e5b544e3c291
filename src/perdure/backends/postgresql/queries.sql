-- Lines that end with --1 are for stores of schema 1 alone, those with --2 for schema 2 and later. {writes} is whether the store takes
-- writers of this version. {proven} is whether the head in a row of sessions, `s`, is the one that its newest commit repeats.

-- append --
-- Attempts and their records, packed: {attempt} and {record} numbers each (see packing.py), and all their bytes and texts one after another,
-- which costs client and server a tenth of an array for each column. Heads are locked in one order. An attempt moves its head if it is the
-- expected one and none of its keys is known, or makes the session if there is none. A row an attempt: whether it won, the head that was
-- found, whether its newest commit, if it can be seen yet, repeats it, a known key, and what of this server decides how durable that is. The statement sees every commit that its writer knew of, and a
-- head that is still the expected one has none behind it: so keys need no lock. The series end at the most that is ever sent: the planner
-- takes that for their size.
WITH attempt AS MATERIALIZED (
    SELECT i AS number, v[1] AS expected, v[2] AS created, v[3] AS version, v[4] AS at, v[5] AS epoch, v[6]::smallint AS status, v[7] AS data,
        convert_from(substring(%(bytes)b::bytea FROM v[10]::int FOR v[11]::int), 'UTF8') AS tenant,
        convert_from(substring(%(bytes)b::bytea FROM v[12]::int FOR v[13]::int), 'UTF8') AS id,
        substring(%(bytes)b::bytea FROM v[14]::int FOR v[15]::int) AS expected_hash,
        substring(%(bytes)b::bytea FROM v[16]::int FOR v[17]::int) AS hash,
        CASE WHEN v[19] >= 0 THEN convert_from(substring(%(bytes)b::bytea FROM v[18]::int FOR v[19]::int), 'UTF8') END AS key,
        CASE WHEN v[21] >= 0 THEN convert_from(substring(%(bytes)b::bytea FROM v[20]::int FOR v[21]::int), 'UTF8') END::jsonb AS tags
        , v[8] AS due_at, v[9] AS size_bytes --2
        , CASE WHEN v[23] >= 0 THEN substring(%(bytes)b::bytea FROM v[22]::int FOR v[23]::int) END AS control --2
    FROM generate_series(0, {batch} - 1) AS i, LATERAL (SELECT (%(attempts)s::bigint[])[i * {attempt} + 1:(i + 1) * {attempt}] AS v) AS packed
    WHERE i < %(count)s AND {writes}
), record AS MATERIALIZED (
    SELECT v[1]::int AS number, v[2] AS version, v[3] AS at, v[4] AS epoch, v[5]::smallint AS status, v[6] AS data, v[7]::smallint AS kind,
        substring(%(bytes)b::bytea FROM v[8]::int FOR v[9]::int) AS hash,
        substring(%(bytes)b::bytea FROM v[10]::int FOR v[11]::int) AS id,
        CASE WHEN v[13] >= 0 THEN convert_from(substring(%(bytes)b::bytea FROM v[12]::int FOR v[13]::int), 'UTF8') END AS key,
        substring(%(bytes)b::bytea FROM v[14]::int FOR v[15]::int) AS request,
        substring(%(bytes)b::bytea FROM v[16]::int FOR v[17]::int) AS meta,
        substring(%(bytes)b::bytea FROM v[18]::int FOR v[19]::int) AS body
    FROM generate_series(0, %(records)s - 1) AS i, LATERAL (SELECT (%(packed)s::bigint[])[i * {record} + 1:(i + 1) * {record}] AS v) AS packed
), held AS MATERIALIZED (
    SELECT a.*, s.n, s.version AS was, s.hash AS was_hash, s.at AS was_at, s.epoch AS was_epoch, s.status AS was_status, s.data AS was_data
    FROM attempt a JOIN {ns}.session s ON s.tenant = a.tenant AND s.id = a.id
    ORDER BY s.tenant, s.id FOR UPDATE OF s
), known AS MATERIALIZED (
    SELECT DISTINCT ON (h.number) h.number, k.key, k.version, k.request
    FROM held h
    JOIN (SELECT number, key FROM attempt UNION ALL SELECT number, key FROM record) AS asked ON asked.number = h.number
    JOIN {ns}.key k ON k.n = h.n AND k.key = asked.key
    WHERE %(keys)s
), moved AS (
    UPDATE {ns}.session s
    SET version = h.version, hash = h.hash, at = h.at, epoch = h.epoch, status = h.status, data = h.data, tags = coalesce(h.tags, s.tags)
        , due_at = CASE h.due_at WHEN {leave} THEN s.due_at WHEN {remove} THEN NULL ELSE h.due_at END --2
        , size_bytes = CASE h.size_bytes WHEN {leave} THEN s.size_bytes ELSE h.size_bytes END, control = coalesce(h.control, s.control) --2
    FROM held h
    WHERE s.n = h.n AND h.was = h.expected AND h.was_hash = h.expected_hash AND NOT EXISTS (SELECT FROM known k WHERE k.number = h.number)
    RETURNING h.number, s.n
), made AS (
    INSERT INTO {ns}.session (tenant, id, version, hash, at, epoch, status, data, created, tags
        , due_at, size_bytes, control --2
    )
    SELECT a.tenant, a.id, a.version, a.hash, a.at, a.epoch, a.status, a.data, a.created, coalesce(a.tags, '{}')
        , CASE WHEN a.due_at >= 0 THEN a.due_at END, greatest(a.size_bytes, 0), coalesce(a.control, '') --2
    FROM attempt a
    WHERE a.expected < 0 AND NOT EXISTS (SELECT FROM held h WHERE h.number = a.number)
    ORDER BY a.tenant, a.id
    ON CONFLICT DO NOTHING
    RETURNING tenant, id, n
), won AS MATERIALIZED (
    SELECT number, n FROM moved
    UNION ALL
    SELECT a.number, m.n FROM made m JOIN attempt a ON a.tenant = m.tenant AND a.id = m.id
), logged AS (
    INSERT INTO {ns}.log (n, version, hash, at, epoch, status, data, id, kind, key, request, meta, body)
    SELECT w.n, r.version, r.hash, r.at, r.epoch, r.status, r.data, r.id, r.kind, r.key, r.request, r.meta, r.body
    FROM won w JOIN record r ON r.number = w.number
), keyed AS (
    INSERT INTO {ns}.key (n, key, version, request)
    SELECT w.n, r.key, r.version, r.request FROM won w JOIN record r ON r.number = w.number WHERE %(keys)s AND r.key IS NOT NULL
)
SELECT w.n IS NOT NULL, h.was, h.was_hash, h.was_at, h.was_epoch, h.was_status, h.was_data, k.key, k.version, k.request,
    CASE WHEN w.n IS NULL THEN (
        SELECT (l.hash, l.at, l.epoch, l.status, l.data) = (h.was_hash, h.was_at, h.was_epoch, h.was_status, h.was_data)
        FROM {ns}.log l WHERE l.n = h.n AND l.version = h.was
    ) END,
    set_config('synchronous_commit', %(level)s, true), current_setting('fsync'), current_setting('synchronous_standby_names')
FROM attempt a
LEFT JOIN won w ON w.number = a.number
LEFT JOIN held h ON h.number = a.number
LEFT JOIN known k ON k.number = a.number
ORDER BY a.number

-- heads --
-- The heads of these sessions, in their order, null where there is none; and whether each is proven.
SELECT s.version, s.hash, s.at, s.epoch, s.status, s.data, s.n IS NULL OR {proven}
FROM unnest(%(tenant)s::text[], %(id)s::text[]) WITH ORDINALITY AS a (tenant, id, number)
LEFT JOIN {ns}.session s ON s.tenant = a.tenant AND s.id = a.id
ORDER BY a.number

-- load --
-- Index row (0), whose kind is 1 where its head is proven, newest fitting snapshot (1) and the records behind it (2), as of one moment.
WITH s AS MATERIALIZED (
    SELECT * FROM {ns}.session WHERE tenant = %(tenant)s AND id = %(id)s
), p AS MATERIALIZED (
    SELECT version, hash, body FROM {ns}.snapshot
    WHERE n = (SELECT n FROM s) AND version <= coalesce(%(at)s::bigint, (SELECT version FROM s)) ORDER BY version DESC LIMIT 1
)
SELECT 0, version, hash, at, epoch, status, data, NULL::bytea, ({proven})::int::smallint, tags::text, NULL::bytea, NULL::bytea, NULL::bytea, created
    , due_at, control, size_bytes --2
    , NULL::bigint, ''::bytea, 0::bigint --1
FROM s
UNION ALL
SELECT 1, version, hash, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, body, NULL, NULL, NULL, NULL FROM p
UNION ALL
SELECT 2, l.version, l.hash, l.at, l.epoch, l.status, l.data, l.id, l.kind, l.key, l.request, l.meta, l.body, NULL, NULL, NULL, NULL
FROM {ns}.log l
WHERE l.n = (SELECT n FROM s) AND l.version > coalesce((SELECT version FROM p), 0)
AND l.version <= coalesce(%(at)s::bigint, (SELECT version FROM s))
ORDER BY 1, 2

-- read --
-- A range of records: as many as asked for and about so many bytes, at least one. {order} is ASC or DESC.
SELECT version, hash, at, epoch, status, data, id, kind, key, request, meta, body FROM (
    SELECT *, sum(octet_length(body) + octet_length(meta) + 96) OVER w - octet_length(body) - octet_length(meta) - 96 AS before FROM (
        SELECT * FROM {ns}.log
        WHERE n = (SELECT n FROM {ns}.session WHERE tenant = %(tenant)s AND id = %(id)s)
        AND version > %(after)s AND version < %(before)s
        ORDER BY version {order} LIMIT %(limit)s
    ) AS page WINDOW w AS (ORDER BY version {order})
) AS measured WHERE before <= %(bytes)s ORDER BY version {order}

-- find_key --
-- Where a key was applied, the session's head, and whether that is proven.
SELECT k.version, k.request, s.version, s.hash, s.at, s.epoch, s.status, s.data, {proven}
FROM {ns}.session s JOIN {ns}.key k ON k.n = s.n AND k.key = %(key)s
WHERE s.tenant = %(tenant)s AND s.id = %(id)s

-- put_snapshot --
-- Keep a snapshot if its commit is in the chain, and of all the newest so many. A row if it was kept.
WITH l AS MATERIALIZED (
    SELECT l.n, l.version, l.hash FROM {ns}.log l JOIN {ns}.session s ON s.n = l.n
    WHERE s.tenant = %(tenant)s AND s.id = %(id)s AND l.version = %(version)s AND l.hash = %(hash)b AND {writes} FOR SHARE OF l
), put AS (
    INSERT INTO {ns}.snapshot (n, version, hash, body) SELECT n, version, hash, %(body)b FROM l
    ON CONFLICT (n, version) DO UPDATE SET hash = excluded.hash, body = excluded.body
), sized AS ( --2
    UPDATE {ns}.session s SET size_bytes = %(size)s::bigint FROM l WHERE s.n = l.n AND %(size)s::bigint >= 0 --2
), older AS (
    DELETE FROM {ns}.snapshot p USING l WHERE p.n = l.n AND p.version < (
        SELECT min(version) FROM (
            SELECT version FROM {ns}.snapshot WHERE n = (SELECT n FROM l) UNION SELECT version FROM l ORDER BY version DESC LIMIT %(kept)s
        ) AS newest
    )
)
SELECT n FROM l

-- change_index --
-- Change cells of the row as it is known. A row if it was changed.
WITH changed AS (
    UPDATE {ns}.session SET
        due_at = CASE %(due)s::bigint WHEN {leave} THEN due_at WHEN {remove} THEN NULL ELSE %(due)s::bigint END,
        size_bytes = CASE %(size)s::bigint WHEN {leave} THEN size_bytes ELSE %(size)s::bigint END,
        control = coalesce(%(control)b::bytea, control)
    WHERE tenant = %(tenant)s AND id = %(id)s AND version = %(version)s AND hash = %(hash)b
    AND due_at IS NOT DISTINCT FROM %(was)s::bigint AND {writes}
    RETURNING n
)
SELECT n, set_config('synchronous_commit', %(level)s, true) FROM changed

-- scan --
-- Index rows by id, by bytes, each with whether its head is proven. {where} holds the conditions.
SELECT tenant, id, {proven}, version, hash, at, epoch, status, data, tags::text, created
    , due_at, control, size_bytes --2
    , NULL::bigint, ''::bytea, 0::bigint --1
FROM {ns}.session s WHERE {where} ORDER BY id LIMIT %(limit)s

-- due --
-- Index rows that are due, each with whether its head is proven. {where} holds the conditions.
SELECT tenant, id, {proven}, version, hash, at, epoch, status, data, tags::text, created, due_at, control, size_bytes
FROM {ns}.session s WHERE due_at IS NOT NULL AND {where} ORDER BY due_at, tenant, id LIMIT %(limit)s

-- feed --
-- Records by the transaction that wrote them, of those below the oldest that still runs: nothing can come later below them.
SELECT l.xid::text, l.n, s.tenant, s.id, l.version, l.hash, l.at, l.epoch, l.status, l.data, l.id, l.kind, l.key, l.request, l.meta, l.body
FROM {ns}.log l JOIN {ns}.session s ON s.n = l.n
WHERE (l.xid, l.n, l.version) > (%(xid)s::xid8, %(n)s::bigint, %(version)s::bigint)
AND l.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY l.xid, l.n, l.version LIMIT %(limit)s

-- ahead --
-- Whether a record names a transaction that this server has not begun: it was restored from another server.
SELECT EXISTS (SELECT FROM {ns}.log WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))

-- truncate --
-- Drop what is below, if the anchor is there. A row if it was.
WITH anchor AS MATERIALIZED (
    SELECT s.n FROM {ns}.session s JOIN {ns}.log l ON l.n = s.n
    WHERE s.tenant = %(tenant)s AND s.id = %(id)s AND l.version = %(anchor)s AND l.hash = %(hash)b AND l.kind = %(kind)s
    AND %(below)s <= l.version AND {writes} FOR UPDATE OF s
), records AS (
    DELETE FROM {ns}.log l USING anchor WHERE l.n = anchor.n AND l.version < %(below)s
), snapshots AS (
    DELETE FROM {ns}.snapshot p USING anchor WHERE p.n = anchor.n AND (p.version < %(below)s - 1 OR %(snapshot)s)
)
SELECT n FROM anchor

-- purge --
-- Drop all of a deleted session but its head's stub. A row if it was deleted.
WITH gone AS MATERIALIZED (
    SELECT n, version FROM {ns}.session WHERE tenant = %(tenant)s AND id = %(id)s AND status = %(status)s AND {writes} FOR UPDATE
), records AS (
    DELETE FROM {ns}.log l USING gone WHERE l.n = gone.n AND l.version < gone.version
), stub AS (
    UPDATE {ns}.log l SET body = '' FROM gone WHERE l.n = gone.n AND l.version = gone.version
), keys AS (
    DELETE FROM {ns}.key k USING gone WHERE k.n = gone.n
), snapshots AS (
    DELETE FROM {ns}.snapshot p USING gone WHERE p.n = gone.n
), tags AS (
    UPDATE {ns}.session s SET tags = '{}'
        , due_at = NULL, control = '', size_bytes = 0 --2
    FROM gone WHERE s.n = gone.n
)
SELECT n FROM gone

-- announce --
-- Notify those who listen of what went on, if there are any; whether there are. Nobody is notified of what is told to nobody.
SELECT count(pg_notify(%(channel)s, payload)) > 0 FROM unnest(%(payloads)s::text[]) AS payload
WHERE EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = {listening} AND objid = '{ns}.session'::regclass AND objsubid = 2
)

-- listen --
-- Listen.
LISTEN {channel}

-- known --
-- Let it be known that someone listens, for as long as the connection lasts.
SELECT pg_advisory_lock_shared({listening}, '{ns}.session'::regclass::oid::int)
