/** Event streams: messages of bytes, and a stream that goes on after it was cut off (WHATWG HTML, section 9.2). */

import { PerdureError, Unavailable, Unknown, errorOf } from "./errors.js";
import { follow, read, sleep } from "./transport.js";
import { decode } from "./values.js";

/** Milliseconds without a byte after which a stream is given up: a node says something each 15 s. */
const SILENCE = 50_000;
const PAUSE_MAX = 10_000;

/** Makes messages of text, in whatever pieces it comes. */
export class MessageReader {
  #rest = "";
  /** @type {{id: string | null, event: string, data: string[]}} */
  #next = { id: null, event: "", data: [] };
  /** Milliseconds after which the server wants a client to come back. */
  retry = 1000;

  /**
   * The messages that this piece completes.
   * @param {string} piece
   */
  feed(piece) {
    const found = [];
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const message = this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (message) found.push(message);
    }
    return found;
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      const { id, event, data } = this.#next;
      this.#next = { id: null, event: "", data: [] };
      return id === null && data.length === 0 ? null : { id, event: event || "message", data: data.join("\n") };
    }
    const [name, value] = split(line);
    if (name === "data") this.#next.data.push(value);
    else if (name === "event") this.#next.event = value;
    else if (name === "id" && !value.includes("\0")) this.#next.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return null;
  }
}

/**
 * @param {string} line
 * @returns {[string, string]}
 */
function split(line) {
  const colon = line.indexOf(":");
  if (colon < 0) return [line, ""];
  return [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
}

/**
 * The data of the messages of a stream, without an end. It comes back where it was cut off.
 * @param {import("./transport.js").Transport} transport
 * @param {{path: string, last?: string, signal?: AbortSignal, giveUpAfter: number}} asked `last`: the id to begin after.
 *   `giveUpAfter`: seconds without an answer of any node.
 * @returns {AsyncGenerator<any, void, void>}
 */
export async function* messages(transport, { path, last, signal, giveUpAfter }) {
  let heard = Date.now();
  for (let failures = 0; ; ) {
    const reader = new MessageReader();
    const stream = new AbortController();
    const letGo = follow(signal, stream);
    let began = false;
    try {
      for await (const piece of pieces(transport, path, last, stream)) {
        began = true;
        failures = 0;
        for (const message of reader.feed(piece)) {
          const data = message.data === "" ? undefined : decode(message.data);
          if (message.event === "error") throw errorOf(data) ?? new Unknown("The stream ended with an error that is none of Perdure's.");
          if (message.id !== null) last = message.id;
          if (data !== undefined) yield data;
        }
        heard = Date.now();
      }
      if (!began) failures += 1;
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof PerdureError) || ![408, 429, 503, 504].includes(error.status)) throw error;
      if (Date.now() - heard > 1000 * giveUpAfter) throw new Unavailable(`The stream is given up: ${error.detail}`, { cause: error });
      failures += 1;
    } finally {
      letGo();
      stream.abort();
    }
    const pause = failures === 0 ? 0 : Math.min(reader.retry * 2 ** (failures - 1), PAUSE_MAX) * (0.5 + Math.random() / 2);
    if (failures > 0) transport.at += 1;
    await sleep(pause, signal);
  }
}

/**
 * The text of one stream, as it comes, to its end.
 * @param {import("./transport.js").Transport} transport
 * @param {string} path
 * @param {string | undefined} last
 * @param {AbortController} stream
 */
async function* pieces(transport, path, last, stream) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stream.abort(new Error("the node is silent")), SILENCE);
  };
  try {
    wait();
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (last !== undefined) headers["Last-Event-ID"] = last;
    const answer = await transport.send({ path, headers }, stream.signal);
    if (!answer.ok || answer.body === null) {
      transport.believed(answer, await read(answer), false);
      throw new Unknown(`A stream was asked for, and the answer has the status ${answer.status}.`);
    }
    transport.checkStore(answer, false);
    const source = answer.body.getReader();
    const text = new TextDecoder();
    for (;;) {
      wait();
      const { done, value } = await source.read();
      clearTimeout(timer);
      if (done) return;
      yield text.decode(value, { stream: true });
    }
  } catch (cause) {
    if (cause instanceof PerdureError) throw cause;
    throw new Unknown("The stream was cut off.", { cause });
  } finally {
    clearTimeout(timer);
  }
}
