"""The optimisers that a config names: what each reads of [optimiser], what it costs, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import Config, OptimiserConfig
from .ranges import POSITIVE, check_number


@dataclass(frozen=True)
class Optimiser:
    """Facts of one. betas, epsilon: its own values, () and 0 where it reads none. rate: the learning rate by default.

    state_bytes: of each weight. package: what has to be installed; "" = nothing more. is_by_weight: a weight's update
    depends on this weight alone, so that ZeRO may part them anywhere.
    """

    betas: tuple[float, ...] = (0.9, 0.999)
    epsilon: float = 1e-8
    rate: float = 1e-4
    state_bytes: int = 8
    package: str = ""
    is_by_weight: bool = False


OPTIMISERS = {
    "adamw": Optimiser(is_by_weight=True),
    "adamw8bit": Optimiser(state_bytes=2, package="bitsandbytes"),
    "lion": Optimiser((0.9, 0.99), 0.0, 1e-5, 4, "lion-pytorch", is_by_weight=True),
    "prodigy": Optimiser(rate=1.0, state_bytes=16, package="prodigyopt"),
    "adafactor": Optimiser((), 0.0, 1e-2, 0),
}
LEAST_FACTOR = 0.01  # below it a learning rate for Prodigy was meant for another optimiser


def name_of(settings: OptimiserConfig) -> str:
    """The optimiser's name; eight_bit is the older word for adamw8bit."""
    return "adamw8bit" if settings.eight_bit and settings.name == "adamw" else settings.name


def own_values(section: Mapping[str, Any]) -> dict[str, Any]:
    """[optimiser] with the optimiser's own learning rate, betas and epsilon where the config gives none."""
    facts = OPTIMISERS.get(section.get("name", "adamw"), OPTIMISERS["adamw"])
    own = {"learning_rate": facts.rate, "betas": list(facts.betas), "epsilon": facts.epsilon}
    return own | dict(section)


def check_optimiser(config: Config) -> None:
    """Raises ValueError for values that the optimiser has no use for, and where it does not run."""
    settings = config.optimiser
    name, facts = name_of(settings), OPTIMISERS[name_of(settings)]
    if settings.eight_bit and name != "adamw8bit":
        raise ValueError(f"optimiser.eight_bit is AdamW's, and optimiser.name is {name}: set eight_bit to false")
    if not facts.betas and settings.betas:
        raise ValueError(f"optimiser.betas = {list(settings.betas)}, and {name} reads none: set it to []")
    if facts.betas and len(settings.betas) != 2:
        raise ValueError(f"optimiser.betas = {list(settings.betas)} should be two numbers, like {list(facts.betas)}")
    if facts.epsilon:
        check_number("optimiser.epsilon", settings.epsilon, POSITIVE)
    elif settings.epsilon:
        raise ValueError(f"optimiser.epsilon = {settings.epsilon:g}, and {name} reads none: set it to 0")
    if name == "prodigy" and settings.learning_rate < LEAST_FACTOR:
        raise ValueError(
            f"optimiser.learning_rate = {settings.learning_rate:g} is a factor of the rate that prodigy finds by "
            "itself: set it to 1"
        )
    if config.run.parallel.startswith("zero") and not facts.is_by_weight:
        asked = "optimiser.eight_bit" if settings.eight_bit else f"optimiser.name = {name!r}"
        raise ValueError(
            f"{asked} and DeepSpeed exclude each other, which parts the weights: set run.parallel to none or ddp, "
            "or choose adamw or lion"
        )
