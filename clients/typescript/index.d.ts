/** Client of a Perdure service. Durations are in seconds, times are RFC 3339. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export type Durability = "memory" | "buffered" | "local" | "quorum";
export type Status = "active" | "archived" | "deleted";
export type Kind = "data" | "configure" | "lease" | "pin" | "tombstone" | "anchor" | "moved";

/** One change of the state. `path` is a JSON Pointer. */
export interface Operation {
  op: "add" | "append" | "init" | "merge" | "remove" | "set" | "splice" | "test" | "union";
  path: string;
  value?: Json;
  /** For set, remove and splice: what is taken out has to be there still when others wrote first. */
  taken?: boolean;
}

/** Something that happened, and how the state changed by it. */
export interface Event {
  type: string;
  data?: Json;
  ops?: Operation[];
}

/** One operation of a JSON Patch (RFC 6902). */
export interface PatchStep {
  op: "add" | "remove" | "replace" | "move" | "copy" | "test";
  path: string;
  value?: Json;
  from?: string;
}

/** A version and its commit's hash: states, receipts and commits have both. As a text it is `"12-9f86…"`. */
export type Version = string | { version: number; hash: string };

/** The proof of a commit. */
export interface Receipt {
  version: number;
  id: string;
  hash: string;
  at: string;
  durability: Durability;
  /** Whether the idempotency key had been applied before. */
  duplicate: boolean;
}

/** A session's state. With `at`, what the session is today is left out. */
export interface State<S = any> {
  session: string;
  version: number;
  hash: string;
  at: string;
  state: S;
  /** Pass it as `atLeast` to read no older state from any node. */
  token: string;
  status?: Status;
  tags?: Record<string, string>;
  createdAt?: string;
  updatedAt?: string;
}

export interface SessionInfo {
  session: string;
  version: number;
  status: Status;
  tags: Record<string, string>;
  createdAt: string;
  updatedAt: string;
  /** With `due`: when; `null`: at once. */
  dueAt?: string | null;
  /** With `due`: `look`, `expire`, `wake`, `claim`, `keep` or `purge`. */
  why?: string;
}

export interface Commit {
  version: number;
  at: string;
  kind: Kind;
  actor: string | null;
  key: string | null;
  trace: string | null;
  events: { type: string; data?: any; ops?: Operation[] }[];
  epoch: number;
  id: string;
  prev: string;
  hash: string;
}

export interface Change extends Commit {
  session: string;
  /** Pass it as `after` to go on after this change. */
  cursor: string;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Seconds for all tries of this call. */
  timeout?: number;
}

export interface WriteOptions extends CallOptions {
  /** The caller's trace (W3C). */
  traceparent?: string;
}

export interface OnceOptions extends WriteOptions {
  /** A name for this write: sent again with it, it is applied once. Without it, a new one. */
  key?: string;
}

export interface KeyedOptions extends OnceOptions {
  lease?: Lease | string;
  durability?: Durability;
}

export interface AppendOptions extends KeyedOptions {
  /** The version on which it was decided: merged over what followed, or `Conflict`. */
  base?: number | Version;
  /** No data commit may have followed this version, else `PreconditionFailed`. `"*"`: the session must exist. */
  ifMatch?: Version;
  /** `"*"`: the session must not exist. */
  ifNoneMatch?: "*";
  onConflict?: "merge" | "raise";
  recreate?: boolean;
}

export interface PatchOptions extends KeyedOptions {
  base?: number | Version;
  ifMatch?: Version;
  actor?: string;
}

export interface ReadOptions extends CallOptions {
  at?: number | Version | Date;
  consistency?: "strong" | "eventual";
  maxStaleness?: number;
  /** A state, a receipt, a token, or a version with its hash: an older state is no answer. */
  atLeast?: Version;
  includeDeleted?: boolean;
  lease?: Lease | string;
}

export interface HistoryOptions extends CallOptions {
  after?: number;
  before?: number;
  types?: string[];
  newestFirst?: boolean;
  /** Most commits; without it all, or 100 of a page. A page has 1,000 at most. */
  limit?: number;
  includeDeleted?: boolean;
  control?: boolean;
}

export interface ListOptions extends CallOptions {
  prefix?: string;
  tags?: Record<string, string>;
  status?: Status;
  updatedAfter?: string | Date;
  updatedBefore?: string | Date;
  /** Those that somebody has to look at before this time, the earliest first. */
  due?: string | Date;
  /** Most sessions; without it all, or 100 of a page. A page has 1,000 at most. */
  limit?: number;
}

export interface WatchOptions {
  after?: number | Version;
  types?: string[];
  control?: boolean;
  signal?: AbortSignal;
  /** Seconds without an answer of any node, after which it is `Unavailable`; 60 without it. */
  giveUpAfter?: number;
}

export interface ChangesOptions {
  /** The cursor of a change. */
  after?: string;
  types?: string[];
  prefix?: string;
  tags?: Record<string, string>;
  control?: boolean;
  signal?: AbortSignal;
  giveUpAfter?: number;
}

export interface LeaseOptions extends WriteOptions {
  /** Who, for people. */
  owner: string;
  /** How long the holder may be silent before somebody else may take over; 30 without it. */
  ttl?: number;
  /** How long to wait for another holder, up to 60; then `Held`. */
  wait?: number;
  exclusive?: boolean;
  key?: string;
}

export interface ClaimOptions extends WriteOptions {
  owner: string;
  prefix?: string;
  tags?: Record<string, string>;
  ttl?: number;
  /** Most sessions to hand out: 1 to 100. */
  limit?: number;
  exclusive?: boolean;
}

/** What is left out stays; `null` removes. */
export interface Policy {
  tags?: Record<string, string>;
  expireAfter?: number | null;
  grace?: number | null;
  archiveAfter?: number | null;
  wakeAt?: string | Date | null;
  wakeEvery?: number | null;
  wake?: "claim" | "sweep" | null;
  keep?: { seconds: number } | { commits: number } | null;
  drop?: boolean | null;
  actor?: string;
}

export interface Verified {
  session: string;
  version: number;
  hash: string;
  commits: number;
  snapshots: number;
}

export interface StoreOptions {
  /** A text, or a function that gives the token of the moment. Without it, PERDURE_TOKEN of the environment where there is one. */
  token?: string | (() => string | Promise<string>);
  /** Seconds for all tries of a call; 10 without it. */
  timeout?: number;
  /** The store that has to answer. Without it, the first answer says it. */
  storeId?: string;
  /** Memory for states, so that unchanged ones are not sent again; 8 MiB without it, 0 for none. */
  cacheBytes?: number;
  fetch?: typeof fetch;
}

export class Store {
  /** `http://host:port`, `http://host:port,host:port/path`, or a list of URLs: nodes of one service. */
  constructor(url: string | string[], options?: StoreOptions);
  readonly storeId: string | undefined;
  /** Append a commit: it is applied once, however often it has to be sent. */
  append(session: string, commit: { events?: Event[]; ops?: Operation[]; actor?: string }, options?: AppendOptions): Promise<Receipt>;
  /** JSON Patch (RFC 6902): one commit, also where it changes nothing. Array indices, `move` and `copy` need `ifMatch` or `base`. */
  patch(session: string, steps: PatchStep[], options?: PatchOptions): Promise<Receipt>;
  /** JSON Merge Patch (RFC 7396): one commit, also where it changes nothing. */
  mergePatch(session: string, patch: Json, options?: PatchOptions): Promise<Receipt>;
  read<S = any>(session: string, options?: ReadOptions): Promise<State<S>>;
  history(session: string, options?: HistoryOptions & { pageSize?: number }): AsyncGenerator<Commit, void, void>;
  /** One page. Pass its `next` for the next one; `null` at the end. */
  historyPage(session: string, options?: HistoryOptions & { next?: string }): Promise<{ commits: Commit[]; next: string | null }>;
  list(options?: ListOptions & { pageSize?: number }): AsyncGenerator<SessionInfo, void, void>;
  listPage(options?: ListOptions & { next?: string }): Promise<{ sessions: SessionInfo[]; next: string | null }>;
  /** Commits in order and each once, those to come too. It ends after the session's deletion. */
  watch(session: string, options?: WatchOptions): AsyncGenerator<Commit, void, void>;
  /** Commits of all sessions, at least once. */
  changes(options?: ChangesOptions): AsyncGenerator<Change, void, void>;
  /** The fork's id. Without `id`, a new one. */
  fork(session: string, options?: OnceOptions & { at?: number; id?: string; actor?: string }): Promise<string>;
  /** `null`: there is nothing new. */
  merge(session: string, into: string, options?: KeyedOptions & { actor?: string }): Promise<Receipt | null>;
  delete(session: string, options?: OnceOptions & { actor?: string }): Promise<Receipt>;
  purge(session: string, options?: CallOptions): Promise<void>;
  configure(session: string, policy: Policy, options?: OnceOptions & { lease?: Lease | string }): Promise<Receipt>;
  verify(session: string, options?: CallOptions): Promise<Verified>;
  lease(session: string, options: LeaseOptions): Promise<Lease>;
  claim(options: ClaimOptions): Promise<Lease[]>;
}

export class Lease {
  private constructor();
  readonly session: string;
  /** The grant, which goes along as `Perdure-Lease`. It is no secret. */
  readonly grant: string;
  /** The fencing token. */
  readonly token: number;
  readonly owner: string;
  readonly ttl: number;
  readonly exclusive: boolean;
  /** Say that the holder lives, and ask whether it still holds; else `Fenced`. */
  confirm(options?: WriteOptions): Promise<void>;
  release(options?: OnceOptions): Promise<void>;
}

/** Something failed. `code` is stable, `retryable` says whether the same call may succeed later, `facts` what it is about. */
export class PerdureError extends Error {
  constructor(
    detail: string,
    more?: {
      code?: string; retryable?: boolean; status?: number; advice?: string; facts?: Record<string, any>; traceId?: string; cause?: unknown;
    },
  );
  readonly code: string;
  readonly retryable: boolean;
  readonly status: number;
  readonly detail: string;
  readonly advice: string;
  readonly facts: Record<string, any>;
  readonly traceId: string | undefined;
}
export class Conflict extends PerdureError {}
export class Fenced extends PerdureError {}
export class Held extends PerdureError {}
export class NotFound extends PerdureError {}
export class Deleted extends PerdureError {}
export class AlreadyExists extends PerdureError {}
export class Unknown extends PerdureError {}
export class Unavailable extends PerdureError {}
export class Busy extends PerdureError {}
export class TooLarge extends PerdureError {}
export class Invalid extends PerdureError {}
export class KeyReused extends Invalid {}
export class Corrupt extends PerdureError {}
export class Unsupported extends PerdureError {}
export class Unauthorized extends PerdureError {}
export class QuotaExceeded extends PerdureError {}
export class Moved extends PerdureError {}
export class Truncated extends PerdureError {}
export class Rewound extends PerdureError {}
export class Closed extends PerdureError {}
export class NoRoute extends PerdureError {}
export class MethodNotAllowed extends PerdureError {}
export class NotAcceptable extends PerdureError {}
export class RequestTimeout extends PerdureError {}
export class PreconditionFailed extends PerdureError {}
export class UnsupportedMedia extends PerdureError {}
export class ExpectationFailed extends PerdureError {}
export class Misdirected extends PerdureError {}
export class PreconditionRequired extends PerdureError {}
export class Forbidden extends PerdureError {}
