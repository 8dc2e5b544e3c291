"""The shared cache: states that one process has loaded, for others. It saves the load, never the look at the head."""
