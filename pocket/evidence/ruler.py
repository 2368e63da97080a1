"""The ruler itself, and the base with text alone: what all other figures stand on."""

from __future__ import annotations

from typing import Any

from ..training import base, judge
from ..world.scenes import ATTRIBUTES
from .claim import Bench, Claim
from .figures import Findings

BAR, TEXT_BAR = 0.995, 0.98
TEXTS = 256


def measure(bench: Bench, found: Findings) -> None:
    places = bench.studio.places
    ruler, text = judge.report(places), base.report(places, TEXTS)
    found.figures |= {"judge": ruler, "text alone": text}
    found.say(
        'Every picture is read by the *judge*, a classifier of the five attributes with a class "none" for each, '
        "trained on blurred, mixed and half-formed pictures. An attribute counts where the judge is surer than "
        f"{judge.SURE}. Here it reads {ruler['pictures']} pictures that it has never seen, of both looks, as drawn and "
        "as the autoencoder gives them back; shares right in percent, position in pixels."
    )
    kinds = ("drawn", "autoencoded")
    found.table(
        ["pictures", *ATTRIBUTES, "look", "position off by"],
        [
            [
                kind,
                *(_percent(ruler[kind][name]) for name in ATTRIBUTES),
                _percent(ruler[f"{kind}, look"]),
                f"{ruler[f'{kind}, position_px']} px",
            ]
            for kind in kinds
        ],
    )
    none = ruler["spoiled, told as none"]
    found.say(
        'Spoiled pictures that the judge calls "none": '
        + ", ".join(f"{name} {_percent(none[name])} %" for name in ATTRIBUTES)
        + "."
    )
    found.say(
        f"*Text alone*: {text['pictures']} texts that name shape, colour and background, guidance {text['guidance']}."
    )
    right: dict[str, Any] = text["right"]
    found.table([*right], [[_percent(share) for share in right.values()]])
    for kind in kinds:
        worst = min(ATTRIBUTES, key=lambda name: ruler[kind][name])
        found.at_least(f"the judge on {kind} pictures, {worst} (the least of five)", ruler[kind][worst], BAR)
    for name, share in right.items():
        found.at_least(f"text alone, {name}", share, TEXT_BAR)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


CLAIM = Claim("ruler", "The ruler, and text alone", {}, measure)
