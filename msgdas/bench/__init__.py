"""Time and memory of a search step."""
