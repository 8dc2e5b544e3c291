/** What goes into paths, headers and bodies, and what comes back: without a loss, or an error. */

import { Invalid, Unsupported } from "./errors.js";

const PLAIN = /^[A-Za-z0-9._~:@-]+$/;
const LONE_SURROGATE = /\p{Surrogate}/u;
const UTF8 = new TextEncoder();

/**
 * A session id as a segment of a path: as it is, or `=` and its UTF-8 in base64url without padding.
 * @param {string} session
 */
export function segment(session) {
  if (typeof session !== "string" || session === "") throw new Invalid("A session id is a text, and not empty.");
  if (PLAIN.test(session) && session !== "." && session !== "..") return session;
  const coded = btoa(binary(session, "A session id"));
  return `=${coded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/**
 * The UTF-8 of a text, a character for each byte: what `btoa` and headers take.
 * @param {string} text
 * @param {string} what
 */
export function binary(text, what) {
  if (LONE_SURROGATE.test(text)) throw new Invalid(`${what} has half of a surrogate pair, which UTF-8 cannot say.`);
  return Array.from(UTF8.encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/**
 * An idempotency key as a header says it. One that a header would change is quoted.
 * @param {string} key
 */
export function keyHeader(key) {
  if (typeof key !== "string" || key === "") throw new Invalid("An idempotency key is a text, and not empty.");
  if (/[\x00-\x1f\x7f]/.test(key)) throw new Invalid("An idempotency key has no control characters.");
  const said = binary(key, "An idempotency key");
  if (!/^[\s"]|\s$/.test(said)) return said;
  return `"${said.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** A new idempotency key: 128 random bits. It works on pages without TLS too, where `crypto.randomUUID` is missing. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A version as conditions name it: a number, `"12-9f86…"`, or what has `version` and `hash`, as states, receipts and commits do.
 * @param {any} given
 * @param {string} name
 * @returns {string | number}
 */
export function versionOf(given, name) {
  if (typeof given === "number" || (typeof given === "string" && given !== "")) return given;
  if (typeof given?.version === "number" && typeof given.hash === "string") return `${given.version}-${given.hash}`;
  throw new Invalid(`${name} takes a version with its hash, or what has both: a state, a receipt or a commit.`);
}

/**
 * The header `If-Match` for a version.
 * @param {any} given
 */
export function ifMatch(given) {
  const named = String(versionOf(given, "ifMatch"));
  return named === "*" || named.endsWith('"') ? named : `"${named}"`;
}

/**
 * A body. What JSON would change without a word is `Invalid`.
 * @param {any} value
 */
export function encode(value) {
  const said = JSON.stringify(value, (name, item) => {
    if (typeof item === "number" && !Number.isFinite(item)) throw new Invalid(`JSON has no ${item} (at ${JSON.stringify(name)}).`);
    if (typeof item === "bigint") throw new Invalid(`JSON.stringify cannot write a BigInt (at ${JSON.stringify(name)}).`);
    return item;
  });
  if (said === undefined) throw new Invalid("The body is nothing that JSON can say.");
  return said;
}

/**
 * What a body says. An integer that a number of JavaScript cannot hold is an error, and never another number.
 * @param {string} text
 */
export function decode(text) {
  if (/[0-9]{16}/.test(text)) {
    for (const [number] of text.replace(/"(?:[^"\\]|\\.)*"/g, '""').matchAll(/-?[0-9]{16,}(?![0-9.eE])/g)) {
      if (!/[.eE]/.test(number) && BigInt(number) !== BigInt(Number(number))) {
        throw new Unsupported(`The answer has the integer ${number}, which a number of JavaScript cannot hold. Keep it as a text.`);
      }
    }
  }
  return JSON.parse(text);
}

/**
 * A query. What is `undefined` is left out, a list comes several times, a date as RFC 3339 has it.
 * @param {Record<string, any>} given
 */
export function query(given) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    for (const item of Array.isArray(value) ? value : [value]) said.append(name, item instanceof Date ? item.toISOString() : String(item));
  }
  const text = said.toString();
  return text && `?${text}`;
}

/**
 * Raise `Invalid` for a name that a call does not know: nothing is passed over.
 * @param {any} given
 * @param {string} names
 */
export function only(given, names) {
  const known = names.split(" ");
  const odd = Object.keys(given).find((name) => !known.includes(name));
  if (odd !== undefined) throw new Invalid(`${JSON.stringify(odd)} is not known here. Known are: ${known.join(", ")}.`);
}
