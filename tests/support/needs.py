"""What a test needs beyond the packages of the `test` extra: left out where it is missing, but never in CI."""

from __future__ import annotations

import importlib
import os
from typing import Any, NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Leave this test, or this file, out: it needs `what`. In CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}: in CI what a test needs is installed, not left out", pytrace=False)
    pytest.skip(f"needs {what}", allow_module_level=True)


def module(name: str) -> Any:
    """An optional module."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"{name} ({error})")
