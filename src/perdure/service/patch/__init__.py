"""Patches of a state: JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7396), as operations. Pure and bounded."""
