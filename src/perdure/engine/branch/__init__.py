"""Branches: a fork goes on from a version of its parent, and is merged into it."""
