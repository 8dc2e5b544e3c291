/** The public names of the client. */

export { Store } from "./store.js";
export { Lease } from "./lease.js";
export {
  PerdureError, Conflict, Fenced, Held, NotFound, Deleted, AlreadyExists, Unknown, Unavailable, Busy, TooLarge, Invalid, KeyReused, Corrupt,
  Unsupported, Unauthorized, QuotaExceeded, Moved, Truncated, Rewound, Closed, NoRoute, MethodNotAllowed, NotAcceptable,
  RequestTimeout, PreconditionFailed, UnsupportedMedia, ExpectationFailed, Misdirected, PreconditionRequired, Forbidden,
} from "./errors.js";
