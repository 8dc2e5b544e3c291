-- Schema 2; upgrade.py makes it of schema 1. Writers name their columns: a later schema may have more of them.
-- One file, many sessions. Rows of the log lie in the order of their commits, so that a batch of many sessions dirties few
-- pages; a thin unique index finds a session's versions. There is no head row: the newest log row is the head.

CREATE TABLE store (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE session (
    n       INTEGER PRIMARY KEY,          -- stands for (tenant, id) in every other table
    tenant  TEXT NOT NULL,
    id      TEXT NOT NULL,
    created INTEGER NOT NULL,             -- ns since 1970, of the first commit
    status  INTEGER NOT NULL,             -- a copy of the head's, to list by
    tags    TEXT NOT NULL DEFAULT '{}',   -- JSON object of strings
    due_at  INTEGER,                      -- ns since 1970
    control BLOB NOT NULL DEFAULT x'',
    size_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, id)
);
CREATE INDEX session_due ON session (due_at, tenant, id) WHERE due_at IS NOT NULL;

CREATE TABLE tag (
    tenant TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (tenant, name, value, id)
) WITHOUT ROWID;

CREATE TABLE log (
    pos     INTEGER PRIMARY KEY,          -- the feed's order; rows are never deleted at its end
    n       INTEGER NOT NULL,
    version INTEGER NOT NULL,
    hash    BLOB NOT NULL,
    at      INTEGER NOT NULL,             -- ns since 1970
    epoch   INTEGER NOT NULL,
    status  INTEGER NOT NULL,
    data    INTEGER NOT NULL,             -- version of the newest data commit
    id      BLOB NOT NULL,
    kind    INTEGER NOT NULL,
    key     TEXT,
    request BLOB NOT NULL,
    meta    BLOB NOT NULL,
    body    BLOB NOT NULL
);
CREATE UNIQUE INDEX log_chain ON log (n, version);

CREATE TABLE key (                        -- outlives the log's rows: a key stays known after truncation
    n INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, request BLOB NOT NULL,
    PRIMARY KEY (n, key)
) WITHOUT ROWID;

CREATE TABLE snapshot (
    n INTEGER NOT NULL, version INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (n, version)
);
