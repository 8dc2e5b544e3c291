-- Schema 2; upgrade.py makes it of schema 1. {ns} is the namespace. Bodies are compressed before they come here: EXTERNAL storage does not try again.

CREATE TABLE {ns}.store (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- The head of a session and its index row. Appends change columns that no index covers, so PostgreSQL updates rows in place (HOT).
CREATE TABLE {ns}.session (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hash bytea NOT NULL,
    at bigint NOT NULL,
    epoch bigint NOT NULL,
    status smallint NOT NULL,
    data bigint NOT NULL,
    created bigint NOT NULL,
    tags jsonb NOT NULL DEFAULT '{}',
    due_at bigint,
    control bytea NOT NULL DEFAULT '',
    size_bytes bigint NOT NULL DEFAULT 0,
    UNIQUE (tenant, id)
) WITH (fillfactor = 60);

CREATE INDEX session_tags ON {ns}.session USING gin (tags jsonb_path_ops) WHERE tags <> '{}';

-- An append leaves these columns as they are, unless it says when the session is due.
CREATE INDEX session_due ON {ns}.session (due_at, tenant, id) WHERE due_at IS NOT NULL;

-- One row a commit. xid says which transaction wrote it: the feed goes by it, and stops below the oldest that still runs.
CREATE TABLE {ns}.log (
    n bigint NOT NULL,
    version bigint NOT NULL,
    hash bytea NOT NULL,
    at bigint NOT NULL,
    epoch bigint NOT NULL,
    status smallint NOT NULL,
    data bigint NOT NULL,
    id bytea NOT NULL,
    kind smallint NOT NULL,
    key text,
    request bytea NOT NULL,
    meta bytea NOT NULL,
    body bytea NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (n, version)
);
ALTER TABLE {ns}.log ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX log_feed ON {ns}.log (xid, n, version);

CREATE TABLE {ns}.key (
    n bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    request bytea NOT NULL,
    PRIMARY KEY (n, key)
);

CREATE TABLE {ns}.snapshot (
    n bigint NOT NULL,
    version bigint NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (n, version)
);
ALTER TABLE {ns}.snapshot ALTER COLUMN body SET STORAGE EXTERNAL;
