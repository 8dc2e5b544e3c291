"""The specification of every engine: a chain per session, one conditional write, and reads in one round trip.

A backend stores finished records and never looks inside them. All truth about a session's head is in `Head`; a record
carries the head that it makes, so a backend copies those fields and decides nothing.

Vocabulary
    head        the newest record's position and standing; the condition of every append
    finish      the engine's pure function from a head to the records that follow it. A backend calls it where the head
                is certain (inside its transaction), or on the head it last saw and again after a lost race
    durability  how safe a write is on return, see `Durability`

Threads and loops: every method may be called from any event loop, and from a thread without one (the calls then block:
see `concurrency.replies`). Cancelling an `append` leaves each session appended or not; read the heads back before sending anything else.

Errors: only `perdure.errors`. `Unavailable` means that nothing was written, `Unknown` that it may have been.
"""

from __future__ import annotations

from perdure.backends.spi.backend import (
    Attentive,
    Backend,
    Examined,
    Hear,
    Identified,
    Indexed,
    Notifying,
    Progress,
    Proving,
    Served,
    Settling,
    Spread,
    Versioned,
    indexed,
    served,
)
from perdure.backends.spi.capabilities import Capabilities, Checkup, Finding
from perdure.backends.spi.rows import (
    APPENDS_MAX,
    NEVER,
    SCHEMA_VERSION,
    Append,
    Appended,
    Change,
    Index,
    Known,
    Loaded,
    Outcome,
    Page,
    Query,
    Refused,
    Row,
)
from perdure.model.control import CONTROL_BYTES_MAX
from perdure.model.record import Durability, Head, Record, Snapshot

__all__ = [
    "APPENDS_MAX",
    "CONTROL_BYTES_MAX",
    "NEVER",
    "SCHEMA_VERSION",
    "Append",
    "Appended",
    "Attentive",
    "Backend",
    "Capabilities",
    "Change",
    "Checkup",
    "Durability",
    "Examined",
    "Finding",
    "Head",
    "Hear",
    "Identified",
    "Index",
    "Indexed",
    "Known",
    "Loaded",
    "Notifying",
    "Outcome",
    "Page",
    "Progress",
    "Proving",
    "Query",
    "Record",
    "Refused",
    "Row",
    "Served",
    "Settling",
    "Snapshot",
    "Spread",
    "Versioned",
    "indexed",
    "served",
]
