"""Engines behind a network: a driver of conditional writes on one side, the specification on the other.

facade     RemoteBackend: from any loop or thread to the one loop that owns the client
appender   group commit, known heads, lost races, lost answers
driver     what an engine implements
listening  news from an engine that tells of it
loop       the thread with that loop
urls       options with units in a URL, and URLs without their secrets
"""

from perdure.backends.remote.appender import Appender
from perdure.backends.remote.driver import Answer, Attempt, Driver, Later, Lost, SchemaDriver, Stored
from perdure.backends.remote.facade import RemoteBackend, open_remote
from perdure.backends.remote.listening import Notice
from perdure.backends.remote.loop import IoLoop, ended, in_thread, together
from perdure.backends.remote.urls import Address, parse_address

__all__ = [
    "Address",
    "Answer",
    "Appender",
    "Attempt",
    "Driver",
    "IoLoop",
    "Later",
    "Lost",
    "Notice",
    "RemoteBackend",
    "SchemaDriver",
    "Stored",
    "ended",
    "in_thread",
    "open_remote",
    "parse_address",
    "together",
]
