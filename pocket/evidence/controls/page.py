"""docs/controls/evidence.md: every measure of a control."""

from __future__ import annotations

from pathlib import Path

from ..figures import read_findings
from ..report import DEVELOP_TEXT, is_there
from . import curves, layers, negatives, regions

CLAIMS = tuple(room.CLAIM for room in (layers, regions, curves, negatives))
HEAD = """# Controls, measured

What the controls of the nodes do, counted on [pocket](../../pocket/README.md), as [evidence.md](../evidence.md) counts
the paper's claims: the same judge, references, guidance and steps, shares in percent with bootstrap intervals of 95 %.
`python -m pocket.evidence controls --final` writes this page and its JSON files, `make evidence` this and the other.
[README.md](README.md) says what each control is for, with pictures; [attention_map.md](attention_map.md) how well maps
of where a picture acted tell its shape.

{references}
"""
FINAL_TEXT = "The references are of a range of seeds that was kept for the end; settings were chosen on other ones."


def write_page(path: Path, folder: Path, is_final: bool) -> None:
    """Write the page from the measures' JSON files in `folder`, beside the page or one above it."""
    parts = [HEAD.format(references=FINAL_TEXT if is_final else DEVELOP_TEXT)]
    for claim in CLAIMS:
        lines = ["Not measured yet.", ""]
        if is_there(folder, claim):
            lines = [
                line.replace("](evidence/", "](../evidence/")
                for line in read_findings(folder / f"{claim.name}.json").lines
            ]
        parts.append("\n".join([f"## {claim.title}", "", *lines]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
