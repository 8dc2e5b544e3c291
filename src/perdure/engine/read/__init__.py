"""Reading: records become states, which are cached, listed and verified."""
