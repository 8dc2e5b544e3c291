// Follows sessions and all changes with the TypeScript client, and prints what comes. `perdure` and `args` (the URL, then the sessions) are
// those of `programs.py`. It ends when its input does.

const [url, ...sessions] = args;
const store = new perdure.Store(url, { timeout: 5 });
const end = new AbortController();
process.stdin.on("end", () => end.abort()).resume();
const say = (take, session, version) => console.log(JSON.stringify({ what: "commit", take, session, version }));

async function watch(session) {
  for await (const commit of store.watch(session, { signal: end.signal })) say("ts watch", session, commit.version);
}

async function changes() {
  for await (const change of store.changes({ signal: end.signal })) say("ts changes", change.session, change.version);
}

try {
  await Promise.all([...sessions.map(watch), changes()]);
} catch (error) {
  if (!end.signal.aborted) throw error;
}
