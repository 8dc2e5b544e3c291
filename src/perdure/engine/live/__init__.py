"""What is going on now: commits are followed as they come."""
