"""An error that every process of a training has met as one: the first says it, and its number means nothing."""

from __future__ import annotations


class SharedError(ValueError):
    """Raised on every process, with the same words."""


class OthersError(SharedError):
    """Raised where another process says what has happened."""
