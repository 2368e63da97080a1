"""Puts this folder on the path, for `tiny_models` and `runs`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
