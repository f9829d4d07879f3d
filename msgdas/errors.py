"""The one exception that a user's own input can cause."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: one line that names the thing, its value and the way out. The command line prints it and exits with
    2."""
