"""Pocket's trained parts, loaded once; what they make is never kept from one run of the tests to the next."""

from __future__ import annotations

import pytest

from pocket.evidence.studio import Studio
from pocket.places import Places


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Places(work=tmp_path_factory.mktemp("pocket")))
