// As `pool_workers.py`, through the resource API. `perdure` and `args` (the URL and the name) are those of `programs.py`.

const PREFIX = "job-";
const WORKERS = 2;
const TTL = 3;
const RESULT = "result";
const UNANSWERED = [408, 429, 503, 504];

const store = new perdure.Store(args[0], { timeout: 5 });
let over = false;
process.stdin.on("end", () => { over = true; }).resume();

const now = () => Number(process.hrtime.bigint()) / 1e9;
const say = (what, take, facts = {}) => console.log(JSON.stringify({ what, take, ...facts }));
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function untilTold(take, what, call) {
  for (;;) {
    const began = now();
    try {
      return { began, found: await call() };
    } catch (error) {
      if (error instanceof perdure.Fenced) say("fenced", take, { do: what, began, ended: now() });
      if (!UNANSWERED.includes(error.status) && error.code !== "busy") throw error;
      say("unsure", take, { do: what, error: error.code, began });
      await sleep(0.02);
    }
  }
}

async function work(lease, name) {
  const { session } = lease;
  const take = `${name} ${session}`;
  say("doing", take, { session });
  for (let step = 0; step < 3; step += 1) {
    await untilTold(take, "step", () => store.append(session, { events: [{ type: "step", data: { by: name } }] }, { lease }));
    await sleep(Math.random() * 0.1);
  }
  const result = { events: [{ type: RESULT, data: { of: session } }] };
  const { began, found } = await untilTold(take, RESULT, () => store.append(session, result, { key: RESULT, lease }));
  say("wrote", take, { session, version: found.version, began, ended: now() });
  await untilTold(take, "release", () => lease.release());
}

async function worker(name) {
  while (!over) {
    try {
      for (const lease of await store.claim({ owner: name, prefix: PREFIX, ttl: TTL, limit: 1 })) await work(lease, name);
    } catch (error) {
      if (UNANSWERED.includes(error.status)) say("unsure", name, { do: "claim", error: error.code });
      else if (!(error instanceof perdure.Fenced)) throw error;
    }
    await sleep(0.05);
  }
}

await Promise.all(Array.from({ length: WORKERS }, (_, number) => worker(`${args[1]}.${number}`)));
