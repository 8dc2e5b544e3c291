"""Threads, event loops and locks: what lets one body of code serve the asynchronous and the blocking API."""

from perdure.concurrency import at_exit  # noqa: F401 - loaded early, see there
