/** Errors as classes: each has a stable `code`, says whether the same call may succeed later, and has the facts that it is about. */

/** Something failed. Catch this class to catch every error of this client. */
export class PerdureError extends Error {
  static code = "error";
  static retryable = false;
  static status = 500;

  /**
   * @param {string} detail What happened.
   * @param {{code?: string, retryable?: boolean, status?: number, title?: string, facts?: Record<string, any>, traceId?: string,
   *   cause?: unknown}} [more] Without them, those of the class.
   */
  constructor(detail, more = {}) {
    const title = more.title ?? "";
    super(`${detail} ${title}`.trim(), more.cause === undefined ? undefined : { cause: more.cause });
    const kind = /** @type {typeof PerdureError} */ (new.target);
    this.name = kind.name;
    this.detail = detail;
    this.title = title;
    this.code = more.code ?? kind.code;
    this.retryable = more.retryable ?? kind.retryable;
    this.status = more.status ?? kind.status;
    this.facts = more.facts ?? {};
    this.traceId = more.traceId;
  }
}

/** Other commits came first, and the change does not combine with them. Facts: `expected`, `actual`, `commits`, `paths`. */
export class Conflict extends PerdureError {
  static code = "conflict";
  static status = 409;
}

/** Another worker holds the session: the write was refused. */
export class Fenced extends PerdureError {
  static code = "fenced";
  static status = 409;
}

/** Another worker holds the lease, and answers. Facts: `owner`, `since`, `ttl`. */
export class Held extends PerdureError {
  static code = "held";
  static retryable = true;
  static status = 423;
}

/** There is no such session. */
export class NotFound extends PerdureError {
  static code = "not_found";
  static status = 404;
}

/** The session was deleted. */
export class Deleted extends PerdureError {
  static code = "deleted";
  static status = 410;
}

/** The session exists already. */
export class AlreadyExists extends PerdureError {
  static code = "already_exists";
  static status = 409;
}

/** Nobody knows whether the write was stored. The same call with the key in `facts.key` finds out, and applies it once at most. */
export class Unknown extends PerdureError {
  static code = "unknown";
  static retryable = true;
  static status = 504;
}

/** No node could be reached, or none could do it now. Nothing was written. */
export class Unavailable extends PerdureError {
  static code = "unavailable";
  static retryable = true;
  static status = 503;
}

/** Other writers were faster again and again. Nothing was written. */
export class Busy extends PerdureError {
  static code = "busy";
  static retryable = true;
  static status = 503;
}

/** A limit on size was passed. */
export class TooLarge extends PerdureError {
  static code = "too_large";
  static status = 413;
}

/** The input was refused. */
export class Invalid extends PerdureError {
  static code = "invalid";
  static status = 400;
}

/** The idempotency key belongs to another write. */
export class KeyReused extends Invalid {
  static status = 422;
}

/** Stored bytes are not what was written. */
export class Corrupt extends PerdureError {
  static code = "corrupt";
}

/** This engine, node or client cannot do that. */
export class Unsupported extends PerdureError {
  static code = "unsupported";
  static status = 501;
}

/** The credentials are missing or refused. */
export class Unauthorized extends PerdureError {
  static code = "unauthorized";
  static status = 401;
}

/** The tenant is over its quota. Facts: `retry_after` (seconds). */
export class QuotaExceeded extends PerdureError {
  static code = "quota_exceeded";
  static retryable = true;
  static status = 429;
}

/** The session lives elsewhere. */
export class Moved extends PerdureError {
  static code = "moved";
  static status = 410;
}

/** The commits asked for were truncated. */
export class Truncated extends PerdureError {
  static code = "truncated";
  static status = 410;
}

/** The store no longer holds the commit that this version or cursor names. */
export class Rewound extends PerdureError {
  static code = "rewound";
  static status = 409;
}

/** The store is closed. */
export class Closed extends PerdureError {
  static code = "closed";
}

/** There is nothing at this path. */
export class NoRoute extends PerdureError {
  static code = "no_route";
  static status = 404;
}

/** The path does not take this method. */
export class MethodNotAllowed extends PerdureError {
  static code = "method_not_allowed";
  static status = 405;
}

/** The route does not answer in that media type. */
export class NotAcceptable extends PerdureError {
  static code = "not_acceptable";
  static status = 406;
}

/** The request did not arrive in time. Nothing was done. */
export class RequestTimeout extends PerdureError {
  static code = "request_timeout";
  static retryable = true;
  static status = 408;
}

/** The session is not as `ifMatch` or `ifNoneMatch` says. Nothing was written. */
export class PreconditionFailed extends PerdureError {
  static code = "precondition_failed";
  static status = 412;
}

/** The body is in a media type that the route does not take. */
export class UnsupportedMedia extends PerdureError {
  static code = "unsupported_media";
  static status = 415;
}

/** The node takes requests for its own machine only. */
export class Misdirected extends PerdureError {
  static code = "misdirected";
  static status = 421;
}

/** The patch needs `ifMatch` or `base`. */
export class PreconditionRequired extends PerdureError {
  static code = "precondition_required";
  static status = 428;
}

/** The credentials do not allow that. */
export class Forbidden extends PerdureError {
  static code = "forbidden";
  static status = 403;
}

/** @type {Record<string, typeof PerdureError>} */
const KINDS = {
  Conflict, Fenced, Held, NotFound, Deleted, AlreadyExists, Unknown, Unavailable, Busy, TooLarge, Invalid, KeyReused, Corrupt,
  Unsupported, Unauthorized, QuotaExceeded, Moved, Truncated, Rewound, Closed, NoRoute, MethodNotAllowed, NotAcceptable,
  RequestTimeout, PreconditionFailed, UnsupportedMedia, Misdirected, PreconditionRequired, Forbidden,
};
const TYPE = "urn:perdure:error:";

/**
 * The error that a problem document says. A kind that this version does not know is a `PerdureError`.
 * @param {any} document
 * @returns {PerdureError | null} `null` if the document is none of ours.
 */
export function errorOf(document) {
  const { type, detail, title, code, retryable, status, facts, trace_id: traceId } = document ?? {};
  if (typeof type !== "string" || !type.startsWith(TYPE) || typeof detail !== "string" || typeof code !== "string") return null;
  const name = type.slice(TYPE.length);
  const Kind = Object.hasOwn(KINDS, name) ? KINDS[name] : PerdureError;
  return new Kind(detail, { code, retryable: retryable === true, status, title, facts: facts ?? {}, traceId });
}
