// As `lease_agents.py`, through the resource API: its nodes answer for the holders that they have heard.
// `perdure` and `args` (the URL, the name of the process, and the share of leases whose holder thinks) are those of `programs.py`.

const SESSIONS = ["l0", "l1", "l2"];
const AGENTS = 2;
const TTL = 3;
const WRITES_MAX = 25;
const THINKS = Number(args[2]);
const UNANSWERED = [408, 429, 503, 504];

const store = new perdure.Store(args[0], { timeout: 5 });
let over = false;
process.stdin.on("end", () => { over = true; }).resume();

const now = () => Number(process.hrtime.bigint()) / 1e9;
const say = (what, take, facts = {}) => console.log(JSON.stringify({ what, take, ...facts }));
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const isUnanswered = (error) => UNANSWERED.includes(error.status) || error.code === "busy";

async function untilTold(take, what, call) {
  for (;;) {
    const began = now();
    try {
      const found = await call();
      return { began, ended: now(), found };
    } catch (error) {
      if (isUnanswered(error)) {
        say("unsure", take, { do: what, error: error.code, began });
        await sleep(0.02);
        continue;
      }
      if (error instanceof perdure.Fenced) say("fenced", take, { do: what, began, ended: now() });
      throw error;
    }
  }
}

async function work(lease, take) {
  const writes = 1 + Math.floor(Math.random() * WRITES_MAX);
  for (let number = 0; number < writes; number += 1) {
    const key = `${take}/${number}`;
    say("writing", take, { key });
    const commit = { events: [{ type: "work", data: { take, token: lease.token } }] };
    const began = now(); // Of the first try, which may be the one that was applied.
    const { ended, found } = await untilTold(take, key, () => store.append(lease.session, commit, { key, lease }));
    say("wrote", take, { key, version: found.version, began, ended });
    if (Math.random() < 0.2) {
      const { began, ended } = await untilTold(take, "confirm", () => lease.confirm());
      say("confirmed", take, { began, ended });
    }
    await sleep(Math.random() * 0.05);
  }
  if (Math.random() < THINKS) await sleep(Math.random() * 2 * TTL);
}

async function agent(name) {
  for (let number = 1; !over; number += 1) {
    const take = `${name}.${number}`;
    const session = SESSIONS[Math.floor(Math.random() * SESSIONS.length)];
    const began = now();
    try {
      const lease = await store.lease(session, { owner: take, ttl: TTL, wait: Math.random() < 0.5 ? 1 : 20 });
      const version = Number(lease.grant.split("-")[0]);
      say("held", take, { session, token: lease.token, version, began, ended: now() });
      await work(lease, take);
      const released = await untilTold(take, "release", () => lease.release({ key: `${take}/release` }));
      say("released", take, { began: released.began, ended: released.ended });
    } catch (error) {
      if (isUnanswered(error)) {
        say("unsure", take, { do: "take", error: error.code, began });
        await sleep(0.02);
      } else if (error instanceof perdure.Held) {
        say("refused", take);
      } else if (!(error instanceof perdure.Fenced)) {
        throw error;
      }
    }
  }
}

await Promise.all(Array.from({ length: AGENTS }, (_, number) => agent(`${args[1]}.${number}`)));
