"""Threads, event loops and locks: what lets one body of code serve the asynchronous and the blocking API."""
