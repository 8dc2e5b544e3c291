"""What the public calls answer with: frozen, typed, the caller's to keep."""

from __future__ import annotations

from perdure.engine.views.commits import Change, Receipt, Verified, only
from perdure.engine.views.sessions import Info, LeaseInfo, Policy, View
from perdure.engine.views.sizes import Archived, CacheInfo, Part, SharedCacheInfo, Sizes, Spooled
from perdure.model.timestamps import to_datetime, to_nanoseconds

__all__ = [
    "Archived",
    "CacheInfo",
    "Change",
    "Info",
    "LeaseInfo",
    "Part",
    "Policy",
    "Receipt",
    "SharedCacheInfo",
    "Sizes",
    "Spooled",
    "Verified",
    "View",
    "only",
    "to_datetime",
    "to_nanoseconds",
]
