"""The speed wing: the same networks, faster."""
