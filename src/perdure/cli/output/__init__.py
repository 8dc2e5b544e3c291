"""Output: what commands answer with, as text for people and as JSON for machines."""
