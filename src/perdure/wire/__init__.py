"""What travels between a node of the session service and its clients: names, media types and limits that both ends know.

It imports only the model and ground. `paths`: session ids in URLs. `problem`: errors as RFC 9457 problem documents.
"""

from __future__ import annotations

WIRE_VERSION = 1
"""The version of the record face. A node serves this one and the one before."""

HEADER_WIRE = "Perdure-Wire"
"""Which wire version a client speaks, and which one the answer is in."""
HEADER_STORE = "Perdure-Store"
"""The id of the store behind a node, on each of its answers: what lacks it was not said by a node."""
HEADER_LEASE = "Perdure-Lease"
"""The grant that a write is made under: the version of its lease commit and that commit's hash, `12-9f…`."""
HEADER_KEY = "Idempotency-Key"
"""The idempotency key of a write."""
HEADER_DEADLINE = "Perdure-Deadline"
"""Seconds that the client waits for the answer: a node settles a write within half of them."""

JSON = "application/json"
PROBLEM = "application/problem+json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
MSGPACK = "application/msgpack"

LONG_SECONDS = 600.0
"""How long a client waits for the answer to what moves or removes many commits. Sent again it goes on with what was done."""
BODY_BYTES_MAX = 16 << 20
"""Largest body of a request, in bytes, where a node is not set up for another."""
BATCH_ATTEMPTS_MAX = 256
"""Most attempts in one request of the record face."""
BATCH_BYTES_MAX = 4 << 20
"""Bytes of attempts after which a client begins another request."""
