"""The presets of layers as formulas over attention modules, t in forward order, with none of the product's code."""

from __future__ import annotations

STYLE = {16: (0, 1, 2, 3, *range(9, 16)), 11: (6,)}
COMPOSITION = {16: {4: 0.25, 5: 1.0}, 11: {3: 1.0}}
MIDDLE = {16: 6, 11: 4}
EASY = ("all", "ease in", "ease out", "ease in-out", "reverse in-out", "weak input", "weak middle", "weak output",
        "strong middle", "middle off (as in older packs)")  # fmt: skip
CONTENT = ("style", "composition", "style + composition", "strong style", "strong style + composition",
           "style precise", "composition precise")  # fmt: skip


def shares(preset: str, count: int, c: float = 1.0, b: float = 1.0) -> dict[int, float]:
    """The share of the weight of each of `count` modules; c: factor of composition, b: boost."""
    half, middle, carries, style = count / 2, MIDDLE[count], COMPOSITION[count], STYLE[count]

    def share(t: int) -> float:
        match preset:
            case "all":
                return 1
            case "ease in":
                return 0.05 + 0.95 * (1 - t / count)
            case "ease out":
                return 0.05 + 0.95 * t / count
            case "ease in-out":
                return 0.05 + 0.95 * (1 - abs(t - half) / half)
            case "reverse in-out":
                return 0.05 + 0.95 * abs(t - half) / half
            case "weak input":
                return 0.2 if t < middle else 1
            case "weak middle":
                return 0.2 if t == middle else 1
            case "weak output":
                return 0.2 if t > middle else 1
            case "strong middle":
                return 1 if t == middle else 0.2
            case "middle off (as in older packs)":
                return 0 if t == middle else 1
            case "style":
                return 1 if t in style else 0
            case "composition":
                return carries.get(t, 0)
            case "style + composition":
                return carries[t] * c if t in carries else 1 if t in style else 0
            case "strong style":
                return 0 if t in carries else 1
            case "strong style + composition":
                return c if t in carries else 1
            case "style precise":
                return carries[t] * b if t in carries else 1 if t in style else 0
            case "composition precise":
                return carries[t] if t in carries else b if t in style else 0.1 * b
        raise AssertionError(preset)

    return {t: share(t) for t in range(count)}


def swapped(preset: str, count: int) -> frozenset[int]:
    """The modules where the picture stands on the unconditional side."""
    if preset == "style precise":
        return frozenset(COMPOSITION[count])
    if preset == "composition precise":
        return frozenset(t for t in range(count) if t not in COMPOSITION[count])
    return frozenset()
