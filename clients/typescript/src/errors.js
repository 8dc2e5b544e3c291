/** Errors as classes: each has a stable `code`, says whether the same call may succeed later, and has the facts that it is about. */

/** Something failed. Catch this class to catch every error of this client. */
export class PerdureError extends Error {
  static code = "error";
  static retryable = false;
  static status = 500;

  /**
   * @param {string} detail What happened.
   * @param {{code?: string, retryable?: boolean, status?: number, advice?: string, facts?: Record<string, any>, traceId?: string,
   *   cause?: unknown}} [more] Without them, those of the class.
   */
  constructor(detail, more = {}) {
    const advice = more.advice ?? "";
    super(`${detail} ${advice}`.trim(), more.cause === undefined ? undefined : { cause: more.cause });
    const kind = /** @type {typeof PerdureError} */ (new.target);
    this.name = kind.name;
    this.detail = detail;
    this.advice = advice;
    this.code = more.code ?? kind.code;
    this.retryable = more.retryable ?? kind.retryable;
    this.status = more.status ?? kind.status;
    this.facts = more.facts ?? {};
    this.traceId = more.traceId;
  }
}

/**
 * A class for one kind of error. What is left out is as in the class that it extends.
 * @param {string} name
 * @param {{code?: string, status?: number, retryable?: boolean}} said
 * @param {typeof PerdureError} [base]
 * @returns {typeof PerdureError}
 */
function kind(name, said, base = PerdureError) {
  const made = class extends base {};
  return Object.assign(Object.defineProperty(made, "name", { value: name }), said);
}

/** Other commits came first, and the change does not combine with them. Facts: `expected`, `actual`, `commits`, `paths`. */
export const Conflict = kind("Conflict", { code: "conflict", status: 409 });
/** Another worker holds the session: the write was refused. */
export const Fenced = kind("Fenced", { code: "fenced", status: 409 });
/** Another worker holds the lease, and answers. Facts: `owner`, `since`, `ttl`. */
export const Held = kind("Held", { code: "held", status: 423, retryable: true });
/** There is no such session. */
export const NotFound = kind("NotFound", { code: "not_found", status: 404 });
/** The session was deleted. */
export const Deleted = kind("Deleted", { code: "deleted", status: 410 });
/** The session exists already. */
export const AlreadyExists = kind("AlreadyExists", { code: "already_exists", status: 409 });
/** Nobody knows whether the write was stored. The same call with the key in `facts.key` finds out, and applies it once at most. */
export const Unknown = kind("Unknown", { code: "unknown", status: 504, retryable: true });
/** No node could be reached, or none could do it now. Nothing was written. */
export const Unavailable = kind("Unavailable", { code: "unavailable", status: 503, retryable: true });
/** Other writers were faster again and again. Nothing was written. */
export const Busy = kind("Busy", { code: "busy", status: 503, retryable: true });
/** A limit on size was passed. */
export const TooLarge = kind("TooLarge", { code: "too_large", status: 413 });
/** The input was refused. */
export const Invalid = kind("Invalid", { code: "invalid", status: 400 });
/** The idempotency key belongs to another write. */
export const KeyReused = kind("KeyReused", { status: 422 }, Invalid);
/** Stored bytes are not what was written. */
export const Corrupt = kind("Corrupt", { code: "corrupt" });
/** This engine, node or client cannot do that. */
export const Unsupported = kind("Unsupported", { code: "unsupported", status: 501 });
/** The credentials are missing or refused. */
export const Unauthorized = kind("Unauthorized", { code: "unauthorized", status: 401 });
/** The tenant is over its quota. Facts: `retry_after` (seconds). */
export const QuotaExceeded = kind("QuotaExceeded", { code: "quota_exceeded", status: 429, retryable: true });
/** The session lives elsewhere. */
export const Moved = kind("Moved", { code: "moved", status: 410 });
/** The commits asked for were truncated. */
export const Truncated = kind("Truncated", { code: "truncated", status: 410 });
/** The store no longer holds the commit that this version or cursor names. */
export const Rewound = kind("Rewound", { code: "rewound", status: 409 });
/** The store is closed. */
export const Closed = kind("Closed", { code: "closed" });
/** There is nothing at this path. */
export const NoRoute = kind("NoRoute", { code: "no_route", status: 404 });
/** The path does not take this method. */
export const MethodNotAllowed = kind("MethodNotAllowed", { code: "method_not_allowed", status: 405 });
/** The route does not answer in that media type. */
export const NotAcceptable = kind("NotAcceptable", { code: "not_acceptable", status: 406 });
/** The request did not arrive in time. Nothing was done. */
export const RequestTimeout = kind("RequestTimeout", { code: "request_timeout", status: 408, retryable: true });
/** The session is not as `ifMatch` or `ifNoneMatch` says. Nothing was written. */
export const PreconditionFailed = kind("PreconditionFailed", { code: "precondition_failed", status: 412 });
/** The body is in a media type that the route does not take. */
export const UnsupportedMedia = kind("UnsupportedMedia", { code: "unsupported_media", status: 415 });
/** The request expects what the node does not do. */
export const ExpectationFailed = kind("ExpectationFailed", { code: "expectation_failed", status: 417 });
/** The node takes requests for its own machine only. */
export const Misdirected = kind("Misdirected", { code: "misdirected", status: 421 });
/** The patch needs `ifMatch` or `base`. */
export const PreconditionRequired = kind("PreconditionRequired", { code: "precondition_required", status: 428 });
/** The credentials do not allow that. */
export const Forbidden = kind("Forbidden", { code: "forbidden", status: 403 });

/** @type {Record<string, typeof PerdureError>} */
const KINDS = {
  Conflict, Fenced, Held, NotFound, Deleted, AlreadyExists, Unknown, Unavailable, Busy, TooLarge, Invalid, KeyReused, Corrupt,
  Unsupported, Unauthorized, QuotaExceeded, Moved, Truncated, Rewound, Closed, NoRoute, MethodNotAllowed, NotAcceptable,
  RequestTimeout, PreconditionFailed, UnsupportedMedia, ExpectationFailed, Misdirected, PreconditionRequired, Forbidden,
};
const TYPE = "urn:perdure:error:";

/**
 * The error that a problem document says. A kind that this version does not know is a `PerdureError`.
 * @param {any} document
 * @returns {PerdureError | null} `null` if the document is none of ours.
 */
export function errorOf(document) {
  const { type, detail, advice, code, retryable, status, facts, trace_id: traceId } = document ?? {};
  if (typeof type !== "string" || !type.startsWith(TYPE) || typeof detail !== "string" || typeof code !== "string") return null;
  const name = type.slice(TYPE.length);
  const Kind = Object.hasOwn(KINDS, name) ? KINDS[name] : PerdureError;
  return new Kind(detail, { code, retryable: retryable === true, status, advice, facts: facts ?? {}, traceId });
}
