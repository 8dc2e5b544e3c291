"""Work on all sessions of a store: functions that take an open store, `perdure.Store` or `perdure.sync.Store`."""

from perdure.ops.consumer import Consumed, Handler, consume
from perdure.ops.control import ConsumerInfo, ParkedInfo, consumers, drop, forget, retry
from perdure.ops.due import DueSession, due
from perdure.ops.sweeper import sweep, sweep_blocking
from perdure.ops.swept import Action, Swept

__all__ = [
    "Action",
    "Consumed",
    "ConsumerInfo",
    "DueSession",
    "Handler",
    "ParkedInfo",
    "Swept",
    "consume",
    "consumers",
    "drop",
    "due",
    "forget",
    "retry",
    "sweep",
    "sweep_blocking",
]
