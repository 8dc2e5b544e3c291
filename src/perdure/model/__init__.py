"""Sessions, events, operations, commits and how they combine. Pure: no I/O, no clock, no randomness."""
