"""The page: every claim's part, and the bars on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..places import Places
from .claim import Claim
from .figures import Bar, Findings, read_findings

SIZE_BAR = 25 * 1024 * 1024  # bytes of weights in the repository
HEAD = """# Evidence

What the paper claims of IP-Adapter (arXiv 2308.06721), measured on [pocket](../pocket/README.md), the small model
in this repository, with adapters trained by `python -m trainer`. `make evidence` writes this page, its sheets and the
JSON files beside them; every figure is what it printed. Intervals are bootstrap intervals of 95 % over the pictures; at
100 % a bootstrap has none, so read n beside them. Sheets show the first references and noises, chosen by number.
What the controls of the nodes do is measured in [controls/evidence.md](controls/evidence.md).

{references}

## Bars

{bars}
"""
FINAL_TEXT = """\
The references are of a range of seeds that was kept for this page. Weights and settings were chosen on other ones;
where a first setting missed its bar here, the next was chosen on those again ([log](log.md))."""
DEVELOP_TEXT = "**A draft on the references of development**: the figures of the page are those of `--final`."


def write_page(path: Path, folder: Path, claims: Sequence[Claim], is_final: bool, places: Places) -> list[Bar]:
    """Write the page from the claims' JSON files in `folder`; returns all bars."""
    found = {claim.name: read_findings(folder / f"{claim.name}.json") for claim in claims if is_there(folder, claim)}
    bars = [bar for one in found.values() for bar in one.bars] + [size_bar(places)]
    parts = [HEAD.format(references=FINAL_TEXT if is_final else DEVELOP_TEXT, bars=table(bars))]
    parts += [section(claim, found) for claim in claims]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return bars


def is_there(folder: Path, claim: Claim) -> bool:
    return (folder / f"{claim.name}.json").exists()


def size_bar(places: Places) -> Bar:
    size = sum(path.stat().st_size for path in places.weights.rglob("*") if path.is_file())
    return Bar("weights in the repository", "at most 25 MB", f"{size / 2**20:.1f} MB", size <= SIZE_BAR)


def table(bars: Sequence[Bar]) -> str:
    lines = ["| bar | wanted | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {bar.what} | {bar.wanted} | {bar.found} | {'reached' if bar.is_reached else '**MISSED**'} |" for bar in bars
    ]
    return "\n".join(lines)


def section(claim: Claim, found: Mapping[str, Findings]) -> str:
    if claim.name not in found:
        return f"## {claim.title}\n\nNot measured yet.\n"
    return "\n".join([f"## {claim.title}", "", *found[claim.name].lines])
