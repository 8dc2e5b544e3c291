"""Records to bytes and back: the envelope, the formats, compression and the checks on everything that is read."""
