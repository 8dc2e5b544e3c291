// A scenario of calls with the TypeScript client, in Node and in browsers.

const commit = ({ version, kind, actor, events }) => ({ version, kind, actor, types: [...new Set(events.map(({ type }) => type))] });

async function some(found, count) {
  const list = [];
  for await (const item of found) {
    list.push(item);
    if (list.length === count) break;
  }
  return list;
}

async function run(store, leases, { do: verb, session, ...given }) {
  switch (verb) {
    case "append": {
      const { events, ops, actor, key, base, on_conflict: onConflict, recreate, leased } = given;
      const lease = leased && leases.get(session);
      const receipt = await store.append(session, { events, ops, actor }, { key, base, onConflict, recreate, lease });
      return { version: receipt.version, duplicate: receipt.duplicate };
    }
    case "read": {
      const { at, consistency, at_least } = given;
      const atLeast = at_least && (await store.read(session)).token;
      const { version, state } = await store.read(session, { at, consistency, atLeast });
      return { version, state };
    }
    case "patch":
      return { version: (await store.patch(session, given.patch)).version };
    case "merge_patch":
      return { version: (await store.mergePatch(session, given.patch, { actor: given.actor })).version };
    case "configure":
      return { version: (await store.configure(session, { tags: given.tags })).version };
    case "fork":
      return await store.fork(session, { at: given.at, id: given.id });
    case "merge": {
      const receipt = await store.merge(session, given.into);
      return receipt && { version: receipt.version };
    }
    case "delete":
      return { version: (await store.delete(session)).version };
    case "list": {
      const { prefix, tags, page_size: pageSize } = given;
      return (await some(store.list({ prefix, tags, pageSize }))).map(({ session, version, status, tags }) => ({ session, version, status, tags }));
    }
    case "history": {
      const { types, limit, page_size: pageSize, newest_first: newestFirst } = given;
      return (await some(store.history(session, { types, limit, pageSize, newestFirst }))).map(commit);
    }
    case "watch":
      return (await some(store.watch(session, { after: given.after }), given.count)).map(commit);
    case "changes":
      return (await some(store.changes({ prefix: given.prefix }), given.count)).map((found) => ({ session: found.session, ...commit(found) }));
    case "lease": {
      const lease = await store.lease(session, { owner: given.owner, exclusive: given.exclusive });
      leases.set(session, lease);
      return { owner: lease.owner, exclusive: lease.exclusive };
    }
    case "confirm":
      return (await leases.get(session).confirm()) ?? null;
    case "release":
      return (await leases.get(session).release()) ?? null;
  }
}

/** The result of each step, at the service with this URL. `client` is the client's module. */
export async function* results({ Store, PerdureError }, url, steps) {
  const store = new Store(url);
  const leases = new Map();
  for (const step of steps) {
    let result;
    try {
      result = await run(store, leases, step);
    } catch (error) {
      if (!(error instanceof PerdureError)) throw error;
      result = { error: error.name, code: error.code, retryable: error.retryable };
    }
    yield result;
  }
}
