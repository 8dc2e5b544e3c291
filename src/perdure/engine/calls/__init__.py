"""What the methods of a store do, a module each: check what was passed, then use the parts of the connection."""
