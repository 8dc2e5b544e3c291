"""Work on all sessions of a store: functions that take an open store, `perdure.Store` or `perdure.sync.Store`."""

from perdure.ops.consumer import Consumed, Handler, consume
from perdure.ops.control import ConsumerInfo, ParkedInfo, consumers, drop, forget, retry

__all__ = ["Consumed", "ConsumerInfo", "Handler", "ParkedInfo", "consume", "consumers", "drop", "forget", "retry"]
