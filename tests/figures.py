"""The measure that this project uses everywhere: max |difference| / max |reference|."""

from torch import Tensor


def relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest value of the reference."""
    assert ours.shape == reference.shape, f"{tuple(ours.shape)} against {tuple(reference.shape)}"
    return ((ours.double() - reference.double()).abs().max() / reference.double().abs().max()).item()


def show(what: str, ours: Tensor, reference: Tensor, limit: float) -> None:
    """Print the largest relative difference, and fail above the limit."""
    difference = relative(ours, reference)
    print(f"{what}: max |difference| / max |reference| = {difference:.2e} (limit {limit:.0e})")
    assert difference <= limit, f"{what}: {difference:.2e} is above {limit:.0e}"
