"""What a refusal looks like: one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refusal(*words: str) -> Iterator[None]:
    """ValueError with one short sentence, with these words in it; it is printed."""
    with pytest.raises(ValueError) as error:
        yield
    message = str(error.value)
    print(f"\n{message}")
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message
