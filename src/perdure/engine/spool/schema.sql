-- A spool, schema 1: the writes of many sessions that wait to be shipped, and what became of the newest ones.

CREATE TABLE spool (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE entry (
    n       INTEGER PRIMARY KEY,          -- the order in which they were enqueued; never used again
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    key     TEXT NOT NULL,                -- the idempotency key with which it is shipped
    state   INTEGER NOT NULL,             -- entries.State
    seen    INTEGER,                      -- the newest version of the session that was known: it says which life is meant
    at      INTEGER NOT NULL,             -- ns since 1970, when it was enqueued
    actor   TEXT,
    trace   TEXT,
    request BLOB NOT NULL,                -- the digest of the events, to compare a second call with the same key
    body    BLOB NOT NULL,                -- the events as the codec encodes them
    seal    BLOB NOT NULL,                -- a digest of what does not change of the row
    error   TEXT,                         -- why it failed, as JSON
    tombstone INTEGER                     -- the tombstone of the life that it was meant for, where that life is over
);
CREATE INDEX entry_key ON entry (tenant, session, key);
CREATE INDEX entry_order ON entry (state, tenant, session);   -- and n, as every index

CREATE TABLE outcome (
    n       INTEGER PRIMARY KEY,
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    key     TEXT NOT NULL,
    request BLOB NOT NULL,
    receipt TEXT                          -- as JSON; NULL: it was dropped
);
CREATE INDEX outcome_key ON outcome (tenant, session, key);

-- Kept by triggers, so that nobody has to count: how many entries there are, their bytes, and the newest n.
CREATE TABLE total (one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL, last INTEGER NOT NULL);
INSERT INTO total VALUES (1, 0, 0, 0);
CREATE TRIGGER entry_added AFTER INSERT ON entry BEGIN
    UPDATE total SET entries = entries + 1, bytes = bytes + length(new.body) + 256, last = new.n;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entry BEGIN
    UPDATE total SET entries = entries - 1, bytes = bytes - length(old.body) - 256;
END;
