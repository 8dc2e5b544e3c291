"""The archive: old records go to segments beside the store, or go; whole sessions too, until they are written to again."""
