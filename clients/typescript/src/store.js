/** The sessions of a service. */

import { Deleted, Invalid } from "./errors.js";
import { Lease, grantOf } from "./lease.js";
import { StateCache } from "./states.js";
import { messages } from "./stream.js";
import { Transport } from "./transport.js";
import { encode, ifMatch, keyHeader, newKey, only, query, segment, versionOf } from "./values.js";

const JSON_TYPE = "application/json";

/** @typedef {Record<string, any>} Options As `index.d.ts` has them for each method. */

export class Store {
  #transport;
  #states;

  /**
   * @param {string | string[]} url
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    only(options, "token timeout storeId cacheBytes fetch");
    this.#transport = new Transport(url, options);
    this.#states = new StateCache(options.cacheBytes ?? 8 << 20);
  }

  /** The id of the store behind the nodes, once one has answered. */
  get storeId() {
    return this.#transport.storeId || undefined;
  }

  /**
   * Append a commit. It is applied once, however often it has to be sent.
   * @param {string} session
   * @param {Options} commit
   * @param {Options} [options]
   */
  async append(session, commit, options = {}) {
    only(commit, "events ops actor");
    only(options, "key base ifMatch ifNoneMatch onConflict recreate durability lease traceparent signal timeout");
    const { events, ops, actor } = commit;
    const { base, onConflict: on_conflict, recreate, durability } = options;
    const body = { events, ops, actor, on_conflict, recreate, durability, base: base && versionOf(base, "base") };
    return (await this.#write("POST", session, "/commits", { ...options, body, keyed: true })).body;
  }

  /**
   * Patch the state by a JSON Patch (RFC 6902): one commit, which keeps the key, also where it changes nothing.
   * @param {string} session
   * @param {any[]} steps
   * @param {Options} [options]
   */
  async patch(session, steps, options = {}) {
    if (!Array.isArray(steps)) throw new Invalid("A JSON Patch is a list of operations. A merge patch is for mergePatch.");
    return this.#patch(session, steps, "application/json-patch+json", options);
  }

  /**
   * Patch the state by a merge patch (RFC 7396): one commit, which keeps the key, also where it changes nothing.
   * @param {string} session
   * @param {any} patch
   * @param {Options} [options]
   */
  async mergePatch(session, patch, options = {}) {
    return this.#patch(session, patch, "application/merge-patch+json", options);
  }

  /**
   * The state: now, at a version, or at a time.
   * @param {string} session
   * @param {Options} [options]
   */
  async read(session, options = {}) {
    only(options, "at consistency maxStaleness atLeast includeDeleted lease signal timeout");
    const { at, consistency, maxStaleness: max_staleness, atLeast, includeDeleted: include_deleted, lease, signal, timeout } = options;
    const at_least = atLeast === undefined ? undefined : (atLeast.token ?? versionOf(atLeast, "atLeast"));
    const named = at === undefined || at instanceof Date ? at : versionOf(at, "at");
    const path = this.#path(session, query({ at: named, consistency, max_staleness, at_least, include_deleted }));
    const kept = this.#states.get(path);
    /** @type {Record<string, string>} */
    const headers = {};
    if (kept) headers["If-None-Match"] = kept.etag;
    if (lease !== undefined) headers["Perdure-Lease"] = grantOf(lease);
    const answer = await this.#transport.ask({ path, headers, signal, timeout });
    if (answer.status === 304 && kept) return renamed(JSON.parse(kept.text));
    const etag = answer.headers.get("ETag");
    if (etag && at_least === undefined) this.#states.put(path, etag, answer.text);
    return renamed(answer.body);
  }

  /**
   * A page of commits, and the query of the next one.
   * @param {string} session
   * @param {Options} [options]
   */
  async historyPage(session, options = {}) {
    only(options, "after before types newestFirst limit includeDeleted control next signal timeout");
    const { after, before, types, newestFirst: newest_first, limit, includeDeleted: include_deleted, control, next } = options;
    const asked = next ?? query({ after, before, types, newest_first, limit, include_deleted, control });
    return page(await this.#get(this.#path(session, `/commits${asked}`), options), "commits");
  }

  /**
   * All commits, or so many as `limit` says, a page after another.
   * @param {string} session
   * @param {Options} [options]
   */
  async *history(session, options = {}) {
    const { limit, pageSize, ...asked } = options;
    yield* paged((next) => this.historyPage(session, { ...asked, limit: pageSize ?? pageOf(limit), next }), "commits", limit);
  }

  /**
   * A page of sessions, by id or with `due` by when they are due, and the query of the next one.
   * @param {Options} [options]
   */
  async listPage(options = {}) {
    only(options, "prefix tags status updatedAfter updatedBefore due limit next signal timeout");
    const { prefix, tags = {}, status, updatedAfter: updated_after, updatedBefore: updated_before, due, limit, next } = options;
    const tag = Object.entries(tags).map(([name, value]) => `${name}=${value}`);
    const asked = next ?? query({ prefix, tag, status, updated_after, updated_before, due, limit });
    const found = page(await this.#get(`/v1/sessions${asked}`, options), "sessions");
    return { ...found, sessions: found.sessions.map(renamed) };
  }

  /**
   * All sessions, or so many as `limit` says, by id or with `due` by when they are due.
   * @param {Options} [options]
   */
  async *list(options = {}) {
    const { limit, pageSize, ...asked } = options;
    yield* paged((next) => this.listPage({ ...asked, limit: pageSize ?? pageOf(limit), next }), "sessions", limit);
  }

  /**
   * The commits of a session, those to come too, in order and each once. It ends after the session's deletion.
   * @param {string} session
   * @param {Options} [options]
   */
  async *watch(session, options = {}) {
    only(options, "after types control signal giveUpAfter");
    const { after, types, control, signal, giveUpAfter = 60 } = options;
    const first = after === undefined ? undefined : versionOf(after, "after");
    const path = this.#path(session, `/watch${query({ after: first, types, control })}`);
    let begun = false;
    try {
      for await (const commit of messages(this.#transport, { path, signal, giveUpAfter })) {
        begun = true;
        yield commit;
        if (commit.kind === "tombstone") return;
      }
    } catch (error) {
      if (!(begun && error instanceof Deleted)) throw error;
    }
  }

  /**
   * The commits of all sessions, at least once. Each has a `cursor`, after which `after` goes on.
   * @param {Options} [options]
   */
  async *changes(options = {}) {
    only(options, "after types prefix tags control signal giveUpAfter");
    const { after, types, prefix, tags = {}, control, signal, giveUpAfter = 60 } = options;
    const tag = Object.entries(tags).map(([name, value]) => `${name}=${value}`);
    const path = `/v1/changes${query({ after, types, prefix, tag, control })}`;
    yield* messages(this.#transport, { path, signal, giveUpAfter });
  }

  /**
   * Fork a session, once.
   * @param {string} session
   * @param {Options} [options]
   */
  async fork(session, options = {}) {
    only(options, "key at id actor traceparent signal timeout");
    const { at, id, actor } = options;
    return (await this.#write("POST", session, "/fork", { ...options, body: { at, id, actor }, keyed: true })).body.session;
  }

  /**
   * Merge a fork into its parent, once. `null`: there is nothing new.
   * @param {string} session
   * @param {string} into
   * @param {Options} [options]
   */
  async merge(session, into, options = {}) {
    only(options, "key actor durability lease traceparent signal timeout");
    const { actor, durability } = options;
    return (await this.#write("POST", session, "/merge", { ...options, body: { into, actor, durability }, keyed: true })).body ?? null;
  }

  /**
   * Delete a session, once: a retry does not end what others have begun from its tombstone.
   * @param {string} session
   * @param {Options} [options]
   */
  async delete(session, options = {}) {
    only(options, "key actor traceparent signal timeout");
    return (await this.#write("DELETE", session, query({ actor: options.actor }), { ...options, keyed: true })).body;
  }

  /**
   * Remove all bytes of a deleted session.
   * @param {string} session
   * @param {Options} [options]
   */
  async purge(session, options = {}) {
    only(options, "signal timeout");
    await this.#write("POST", session, "/purge", { ...options, repeatable: true });
  }

  /**
   * Set tags and policies, once.
   * @param {string} session
   * @param {Options} policy
   * @param {Options} [options]
   */
  async configure(session, policy, options = {}) {
    only(policy, "tags expireAfter grace archiveAfter wakeAt wakeEvery wake keep drop actor");
    only(options, "key lease traceparent signal timeout");
    const { expireAfter: expire_after, archiveAfter: archive_after, wakeAt, wakeEvery: wake_every, ...rest } = policy;
    const wake_at = wakeAt instanceof Date ? wakeAt.toISOString() : wakeAt;
    const body = { expire_after, archive_after, wake_at, wake_every, ...rest };
    return (await this.#write("POST", session, "/configure", { ...options, body, keyed: true })).body;
  }

  /**
   * Prove each commit and snapshot of a session.
   * @param {string} session
   * @param {Options} [options]
   */
  async verify(session, options = {}) {
    only(options, "signal timeout");
    return (await this.#write("POST", session, "/verify", { ...options, repeatable: true })).body;
  }

  /**
   * Take a session's lease.
   * @param {string} session
   * @param {Options} options
   */
  async lease(session, options) {
    only(options, "owner ttl wait exclusive key traceparent signal timeout");
    const { owner, ttl, wait, exclusive } = options;
    const body = { owner, ttl, wait, exclusive };
    return this.#lease((await this.#write("POST", session, "/lease", { ...options, body, keyed: true, extra: wait })).body);
  }

  /**
   * Claim sessions that are due. Release each lease when its work is done.
   * @param {Options} options
   */
  async claim(options) {
    only(options, "owner prefix tags ttl limit exclusive traceparent signal timeout");
    const { owner, prefix, tags, ttl, limit, exclusive, signal, timeout } = options;
    const headers = headersOf(options, { "Content-Type": JSON_TYPE });
    const body = encode({ owner, prefix, tags, ttl, limit, exclusive });
    const answer = await this.#transport.ask({ path: "/v1/claims", method: "POST", body, headers, writes: true, signal, timeout });
    return answer.body.claims.map((/** @type {any} */ said) => this.#lease(said));
  }

  /** @param {any} said */
  #lease(said) {
    return new Lease(this.#transport, this.#path(said.session, "/lease"), said);
  }

  /**
   * @param {string} session
   * @param {string} rest
   */
  #path(session, rest) {
    return `/v1/sessions/${segment(session)}${rest}`;
  }

  /**
   * @param {string} path
   * @param {Options} options
   */
  async #get(path, { signal, timeout }) {
    return (await this.#transport.ask({ path, signal, timeout })).body;
  }

  /**
   * @param {string} session
   * @param {any} patch
   * @param {string} media
   * @param {Options} options
   */
  async #patch(session, patch, media, options) {
    only(options, "key base ifMatch actor durability lease traceparent signal timeout");
    const { base, actor, durability } = options;
    const asked = query({ base: base && versionOf(base, "base"), actor, durability });
    return (await this.#write("PATCH", session, asked, { ...options, body: patch, media, keyed: true })).body;
  }

  /**
   * @param {string} method
   * @param {string} session
   * @param {string} rest
   * @param {Options} asked
   */
  async #write(method, session, rest, asked) {
    const { body, media = JSON_TYPE, keyed = false, repeatable = keyed, signal, timeout, extra } = asked;
    const key = keyed ? (asked.key ?? newKey()) : undefined;
    const headers = headersOf(asked, body === undefined ? {} : { "Content-Type": media });
    if (key !== undefined) headers["Idempotency-Key"] = keyHeader(key);
    return this.#transport.ask({
      path: this.#path(session, rest), method, headers, writes: true, repeatable, signal, timeout, extra,
      body: body === undefined ? undefined : encode(body), facts: { session, ...(keyed && { key }) },
    });
  }
}

/**
 * The headers of a write.
 * @param {Options} options
 * @param {Record<string, string>} headers
 */
function headersOf(options, headers) {
  if (options.lease !== undefined) headers["Perdure-Lease"] = grantOf(options.lease);
  if (options.ifMatch !== undefined) headers["If-Match"] = ifMatch(options.ifMatch);
  if (options.ifNoneMatch !== undefined) headers["If-None-Match"] = options.ifNoneMatch;
  if (options.traceparent !== undefined) headers.traceparent = options.traceparent;
  return headers;
}

/**
 * A page whose `next` is the query of the next one, whatever stands before the node.
 * @param {any} body
 * @param {string} name
 */
function page(body, name) {
  return { [name]: body[name], next: body.next === null ? null : body.next.slice(body.next.indexOf("?")) };
}

/**
 * What is on the pages, to the end or to the limit.
 * @param {(next?: string) => Promise<any>} get
 * @param {string} name
 * @param {number} [limit]
 */
async function* paged(get, name, limit = Infinity) {
  let next;
  for (let left = limit; left > 0; ) {
    const found = await get(next);
    yield* found[name].slice(0, left);
    left -= found[name].length;
    next = found.next;
    if (next === null) return;
  }
}

/** @param {any} said */
function renamed({ created_at: createdAt, updated_at: updatedAt, due_at: dueAt, ...rest }) {
  const times = Object.entries({ createdAt, updatedAt, dueAt }).filter(([, time]) => time !== undefined);
  return { ...rest, ...Object.fromEntries(times) };
}

/**
 * How many of a page are enough for a limit.
 * @param {number} [limit]
 */
function pageOf(limit) {
  return limit === undefined ? undefined : Math.min(Math.max(limit, 1), 1000);
}
