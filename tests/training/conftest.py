"""Tiny models run on one thread, where they are fastest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    if "all_threads" not in request.keywords:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
