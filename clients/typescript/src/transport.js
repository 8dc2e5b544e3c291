/**
 * Requests to the nodes of one service: to which, for how long, and what may be believed of what comes back.
 *
 * Only an answer that names the store and has our form was given by a node. Anything else leaves open whether a write was done.
 */

import { Invalid, PerdureError, Unavailable, Unknown, errorOf } from "./errors.js";
import { decode } from "./values.js";

/** Milliseconds before the second try; each further one doubles it, up to `PAUSE_MAX`. */
const PAUSE = 50;
const PAUSE_MAX = 2000;
/** What undici says of a connection that was never made. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

/**
 * @typedef {object} Asked A request.
 * @property {string} path From `/v1` on, with its query.
 * @property {string} [method]
 * @property {string} [body]
 * @property {Record<string, string>} [headers]
 * @property {boolean} [writes] Whether it changes something.
 * @property {boolean} [repeatable] Whether it may be sent again when nobody knows if it was done.
 * @property {number} [timeout] Seconds for all tries.
 * @property {number} [extra] Seconds that the node itself waits.
 * @property {AbortSignal} [signal]
 * @property {Record<string, any>} [facts] What an `Unknown` says.
 */

export class Transport {
  /**
   * @param {string | string[]} url
   * @param {{token?: string | (() => string | Promise<string>), timeout?: number, storeId?: string, fetch?: typeof fetch}} options
   */
  constructor(url, options) {
    this.nodes = nodesOf(url);
    this.at = 0;
    this.timeout = seconds(options.timeout ?? 10, "timeout");
    this.storeId = options.storeId ?? "";
    this.token = options.token ?? /** @type {any} */ (globalThis).process?.env?.PERDURE_TOKEN;
    this.fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * The answer to a request. It is sent again after 408, 503, 504 and without an answer, until the time is over.
   * @param {Asked} asked
   * @returns {Promise<{status: number, headers: Headers, text: string, body: any}>} `body` is `undefined` without one.
   */
  async ask(asked) {
    const { signal, writes = false, repeatable = !writes } = asked;
    const until = Date.now() + 1000 * (seconds(asked.timeout ?? this.timeout, "timeout") + (asked.extra ?? 0));
    let open = null;
    for (let pause = PAUSE; ; pause = Math.min(2 * pause, PAUSE_MAX)) {
      signal?.throwIfAborted();
      let error;
      try {
        const left = Math.max(until - Date.now(), 1);
        return await this.once(asked, this.nodes.length > 1 && repeatable ? left / 2 : left);
      } catch (raised) {
        signal?.throwIfAborted();
        error = raised;
      }
      if (!(error instanceof PerdureError) || ![408, 503, 504].includes(error.status)) throw error;
      if (error instanceof Unknown && writes) open = error;
      if (error instanceof Unknown && !repeatable) throw withFacts(error, asked.facts);
      this.at += 1;
      const wait = pause * (0.5 + Math.random() / 2);
      if (Date.now() + wait >= until) throw withFacts(open ?? (writes ? error : reading(error)), asked.facts);
      await sleep(wait, signal);
    }
  }

  /**
   * One try.
   * @param {Asked} asked
   * @param {number} left Milliseconds.
   */
  async once(asked, left) {
    const timer = new AbortController();
    const late = setTimeout(() => timer.abort(new Error("no answer in time")), left);
    const letGo = follow(asked.signal, timer);
    try {
      const answer = await this.send(asked, timer.signal);
      const text = await read(answer);
      return this.believed(answer, text, asked.writes ?? false);
    } finally {
      clearTimeout(late);
      letGo();
    }
  }

  /**
   * Send it to the node whose turn it is. Raises `Unavailable` where no connection was made, `Unknown` without an answer.
   * @param {Asked} asked
   * @param {AbortSignal} signal
   */
  async send(asked, signal) {
    const node = this.nodes[this.at % this.nodes.length];
    /** @type {Record<string, string>} */
    const headers = { Accept: "application/json", ...asked.headers };
    const token = typeof this.token === "function" ? await this.token() : this.token;
    if (token) headers.Authorization = `Bearer ${token}`;
    let request;
    try {
      request = new Request(node + asked.path, {
        method: asked.method ?? "GET", body: asked.body, headers, signal, redirect: "manual", cache: "no-store", credentials: "omit",
      });
    } catch (cause) {
      throw new Invalid("The request has a header or an address that HTTP cannot say.", { cause });
    }
    try {
      return await this.fetch(request);
    } catch (cause) {
      const reason = /** @type {any} */ (cause)?.cause ?? cause;
      const codes = [reason?.code, ...(reason?.errors ?? []).map((/** @type {any} */ each) => each.code)].filter(Boolean);
      const made = codes.length === 0 || codes.some((code) => !NOT_CONNECTED.has(code));
      const detail = `No answer came from ${node}: ${reason?.message || codes[0] || reason}.`;
      throw made ? new Unknown(detail, { cause }) : new Unavailable(detail, { cause });
    }
  }

  /**
   * What an answer says, if a node of this store has said it. Raises the error of a problem document.
   * @param {Response} answer
   * @param {string} text
   * @param {boolean} writes
   */
  believed(answer, text, writes) {
    this.checkStore(answer, writes);
    let body;
    try {
      if (text !== "") body = decode(text);
    } catch (error) {
      if (error instanceof PerdureError) throw error;
      throw new Unknown(`The answer with status ${answer.status} is no JSON: it was cut off or changed on its way.`);
    }
    if (answer.ok || answer.status === 304) return { status: answer.status, headers: answer.headers, text, body };
    throw errorOf(body) ?? new Unknown(`The answer with status ${answer.status} has no problem document of Perdure.`);
  }

  /**
   * Raises `Unknown` for what no node has said, and for another store.
   * @param {Response} answer
   * @param {boolean} writes
   */
  checkStore(answer, writes) {
    const found = answer.headers.get("Perdure-Store");
    if (!found) throw new Unknown(`What answers with status ${answer.status} is no node of a Perdure service, or stands before one.`);
    if (this.storeId && found !== this.storeId) {
      const detail = `A node serves the store ${found}, and not ${this.storeId} as before.`;
      throw writes && answer.ok ? new Unknown(detail) : new Unavailable(detail);
    }
    this.storeId = found;
  }
}

/** @param {Response} answer */
export async function read(answer) {
  try {
    return await answer.text();
  } catch (cause) {
    throw new Unknown("The answer was cut off.", { cause });
  }
}

/**
 * An unknown outcome of a read changes nothing: the node is away.
 * @param {PerdureError} error
 */
function reading(error) {
  return error instanceof Unknown ? new Unavailable(error.detail, { cause: error.cause, traceId: error.traceId }) : error;
}

/**
 * @template {PerdureError} E
 * @param {E} error
 * @param {Record<string, any>} [facts]
 */
function withFacts(error, facts) {
  error.facts = { ...error.facts, ...facts };
  return error;
}

/**
 * Abort one with the other, until the function is called that comes back.
 * @param {AbortSignal | undefined} signal
 * @param {AbortController} controller
 */
export function follow(signal, controller) {
  const abort = () => controller.abort(signal?.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  return () => signal?.removeEventListener("abort", abort);
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", end);
      resolve();
    }, milliseconds);
    if (signal?.aborted) end();
    signal?.addEventListener("abort", end, { once: true });
  });
}

/**
 * The nodes of `http://host:port,host:port/path`, or of a list of URLs.
 * @param {string | string[]} url
 */
function nodesOf(url) {
  const found = (Array.isArray(url) ? url : [url]).flatMap((each) => {
    const parts = /^(https?):\/\/([^/?#]+)([^?#]*)$/.exec(String(each));
    if (parts === null || parts[2].includes("@")) {
      throw new Invalid("A service is named by http://host:port or https://host:port, without user, password or query.");
    }
    return parts[2].split(",").map((host) => `${parts[1]}://${host}${parts[3].replace(/\/+$/, "")}`);
  });
  if (found.length === 0 || found.some((node) => !URL.canParse(node))) throw new Invalid(`${url} is no URL of a service.`);
  return found;
}

/**
 * @param {number} value
 * @param {string} name
 */
function seconds(value, name) {
  if (typeof value !== "number" || !(value > 0)) throw new Invalid(`${name} takes seconds above 0.`);
  return value;
}
