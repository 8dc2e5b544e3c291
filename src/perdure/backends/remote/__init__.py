"""Engines behind a network: a driver of conditional writes on one side, the specification on the other.

facade     RemoteBackend: from any loop or thread to the one loop that owns the client
appender   appends: known heads, lost races; pending, group_commit, verification and lost_answers are its parts
driver     what an engine implements
listening  notifications from an engine that has them
loop       the thread with that loop
urls       options with units in a URL, and URLs without their secrets
"""

from perdure.backends.remote.appender import Appender
from perdure.backends.remote.driver import Answer, Attempt, Driver, HeadMismatch, RetryLater, SchemaDriver, Stored
from perdure.backends.remote.facade import RemoteBackend, open_address, open_remote
from perdure.backends.remote.listening import Notice
from perdure.backends.remote.loop import IoLoop, cancel_and_wait, gather_all, in_thread
from perdure.backends.remote.urls import Address, parse_address

__all__ = [
    "Address",
    "Answer",
    "Appender",
    "Attempt",
    "Driver",
    "HeadMismatch",
    "IoLoop",
    "Notice",
    "RemoteBackend",
    "RetryLater",
    "SchemaDriver",
    "Stored",
    "cancel_and_wait",
    "gather_all",
    "in_thread",
    "open_address",
    "open_remote",
    "parse_address",
]
