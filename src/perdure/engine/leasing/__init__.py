"""Leases: who may work on a session alone, and how the others find out that nobody does."""
