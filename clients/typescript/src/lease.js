/** A lease of a session: one holder at a time. */

import { keyHeader, newKey, only } from "./values.js";

/** @typedef {import("./transport.js").Transport} Transport */

export class Lease {
  #transport;
  #path;

  /**
   * @param {Transport} transport
   * @param {string} path The lease's route.
   * @param {any} said What the node says of it.
   */
  constructor(transport, path, said) {
    this.#transport = transport;
    this.#path = path;
    /** @type {string} */
    this.session = said.session;
    /** The grant, which goes along as `Perdure-Lease`. It is no secret. @type {string} */
    this.grant = said.lease;
    /** The fencing token: higher than that of each lease of this session before. @type {number} */
    this.token = said.token;
    /** @type {string} */
    this.owner = said.owner;
    /** Seconds. @type {number} */
    this.ttl = said.ttl;
    /** @type {boolean} */
    this.exclusive = said.exclusive;
  }

  /**
   * Say that the holder lives, and ask whether it still holds. Raises `Fenced` where it does not.
   * @param {{signal?: AbortSignal, timeout?: number, traceparent?: string}} [options]
   */
  async confirm(options = {}) {
    await this.#ask("PUT", options, {});
  }

  /**
   * Let go, once, so that others need not wait. Raises `Fenced` where another one holds it already, or another call has released it.
   * @param {{key?: string, signal?: AbortSignal, timeout?: number, traceparent?: string}} [options]
   */
  async release({ key = newKey(), ...options } = {}) {
    await this.#ask("DELETE", options, { "Idempotency-Key": keyHeader(key) });
  }

  /**
   * @param {string} method
   * @param {{signal?: AbortSignal, timeout?: number, traceparent?: string}} options
   * @param {Record<string, string>} more Headers.
   */
  async #ask(method, options, more) {
    only(options, "traceparent signal timeout");
    const { signal, timeout, traceparent } = options;
    /** @type {Record<string, string>} */
    const headers = { "Perdure-Lease": this.grant, ...more };
    if (traceparent !== undefined) headers.traceparent = traceparent;
    await this.#transport.ask({ path: this.#path, method, headers, writes: true, repeatable: true, signal, timeout });
  }
}

/**
 * The header value for a lease or its grant.
 * @param {Lease | string} lease
 */
export function grantOf(lease) {
  return typeof lease === "string" ? lease : lease.grant;
}
