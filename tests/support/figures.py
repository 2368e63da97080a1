"""The measure that this project uses everywhere: max |difference| / max |reference|."""

import pytest
from torch import Tensor

TABLES = pytest.StashKey[dict[str, list[str]]]()  # title to lines, printed at the end of a run


def relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest value of the reference."""
    assert ours.shape == reference.shape, f"{tuple(ours.shape)} against {tuple(reference.shape)}"
    return ((ours.double() - reference.double()).abs().max() / reference.double().abs().max()).item()


def show(what: str, ours: Tensor, reference: Tensor, limit: float) -> None:
    """Print the largest relative difference, and fail above the limit."""
    difference = relative(ours, reference)
    print(f"{what}: max |difference| / max |reference| = {difference:.2e} (limit {limit:.0e})")
    assert difference <= limit, f"{what}: {difference:.2e} is above {limit:.0e}"


def row(request: pytest.FixtureRequest, title: str, line: str) -> None:
    """Add a line to a table that is printed whole at the end of the run, and print it here."""
    request.config.stash.setdefault(TABLES, {}).setdefault(title, []).append(line)
    print(f"\n{line}")
