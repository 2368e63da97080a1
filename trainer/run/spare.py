"""What shows a training and is no part of it: its faults are said, and the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def spared(what: str) -> Iterator[None]:
    """A block whose errors of any kind are said in one line and end there: days of training are worth more."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a tracker's or a sampler's own, of which there is no list
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning(
            "%s failed (%s: %s): the training goes on, and it is tried again", what, type(error).__name__, reason
        )
