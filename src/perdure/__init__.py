"""Perdure: session state for long-running agents. It outlives the process, the machine and the framework that made it."""

from perdure import sync
from perdure.backends.spi import Capabilities, Durability
from perdure.codec.upcast import Upcaster
from perdure.config import Settings
from perdure.engine.calls.edit import Edit
from perdure.engine.calls.enqueue import Queued
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.leasing.lease_end import LeaseEnd
from perdure.engine.opening import Opening, open
from perdure.engine.store import Store
from perdure.engine.views import (
    Archived,
    CacheInfo,
    Change,
    Info,
    LeaseInfo,
    Part,
    Policy,
    Receipt,
    SharedCacheInfo,
    Sizes,
    Spooled,
    Verified,
    View,
)
from perdure.engine.write.drafts import Draft
from perdure.errors import (
    AlreadyExists,
    Busy,
    Closed,
    Conflict,
    Corrupt,
    Deleted,
    Error,
    Fenced,
    Held,
    Invalid,
    KeyReused,
    Moved,
    NotFound,
    QuotaExceeded,
    Rewound,
    TooLarge,
    Truncated,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
)
from perdure.model import ops as op
from perdure.model.commit import Commit, Kind, Status
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.policy import Clash, OnConflict

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Archived",
    "Busy",
    "CacheInfo",
    "Capabilities",
    "Change",
    "Clash",
    "Closed",
    "Commit",
    "Conflict",
    "Corrupt",
    "Deleted",
    "Draft",
    "Durability",
    "Edit",
    "Error",
    "Event",
    "Fenced",
    "Held",
    "Info",
    "Invalid",
    "KeyReused",
    "Kind",
    "Lease",
    "LeaseEnd",
    "LeaseInfo",
    "Leasing",
    "Moved",
    "NotFound",
    "OnConflict",
    "Op",
    "Opening",
    "Part",
    "Policy",
    "Queued",
    "QuotaExceeded",
    "Receipt",
    "Rewound",
    "Settings",
    "SharedCacheInfo",
    "Sizes",
    "Spooled",
    "Status",
    "Store",
    "TooLarge",
    "Truncated",
    "Unauthorized",
    "Unavailable",
    "Unknown",
    "Unsupported",
    "Upcaster",
    "Verified",
    "View",
    "op",
    "open",
    "sync",
]
