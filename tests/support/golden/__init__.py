"""Golden stores: what a version of Perdure stored, kept as dumps, loaded into today's servers and read by today's code."""
