"""What only HTTP refuses: kinds of `perdure.Error` for the statuses that the library has no use for."""

from __future__ import annotations

from perdure.errors import Error, Unavailable


def shutting_down() -> Unavailable:
    """What a node says that takes no request any more. Its fact `absent` lets a client ask another node at once."""
    return Unavailable("This node is shutting down.", absent=True)


class NoRoute(Error):
    """There is nothing at this path. The routes are in /openapi.json."""

    code, http_status = "no_route", 404


class MethodNotAllowed(Error):
    """This path does not take the method. The header Allow names those that it takes."""

    code, http_status = "method_not_allowed", 405


class NotAcceptable(Error):
    """This route does not answer in any media type that the request accepts. Leave Accept out, or name one that the route has."""

    code, http_status = "not_acceptable", 406


class RequestTimeout(Error):
    """The request did not arrive in time and nothing was done. Send it again, faster."""

    code, retryable, http_status = "request_timeout", True, 408


class PreconditionFailed(Error):
    """The session is not as the request's condition says; nothing was written. Read it again, then decide again."""

    code, http_status = "precondition_failed", 412


class UnsupportedMedia(Error):
    """The body is in a media type or a coding that the route does not take; nothing was done. Send it as the route's description says."""

    code, http_status = "unsupported_media", 415


class ExpectationFailed(Error):
    """The request expects what this node does not do; nothing was done. Leave Expect out, or send 100-continue."""

    code, http_status = "expectation_failed", 417


class Misdirected(Error):
    """This node takes requests for this machine only. Call it by a loopback name, or give it credentials."""

    code, http_status = "misdirected", 421


class PreconditionRequired(Error):
    """Say which version the request was made on: If-Match with its ETag, or `base`; nothing was written."""

    code, http_status = "precondition_required", 428


class Forbidden(Error):
    """These credentials do not allow that; nothing was done. Ask for the scope that the message names."""

    code, http_status = "forbidden", 403
