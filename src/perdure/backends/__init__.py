"""Engines: each keeps the same chain behind the same specification, `spi`."""
