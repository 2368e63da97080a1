"""Writes the help pages of the older nodes, web/docs/ID.md, from their table: `python -m tools.older_help`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.comfyui import ROOT
from tools.pack import load

SAME = (
    "For graphs that were made with the older IP-Adapter nodes, with the same inputs and the same numbers. In new "
    "graphs use {ours}. `docs/older_graphs.md` in the pack's folder says what differs, and why."
)


def page(contract: Any) -> str:
    """The help of one node."""
    lines = [f"# {contract.title}", "", SAME.format(ours=contract.ours), ""]
    for entries in contract.input_types().values():
        lines += [f"- **{name}**: {settings['tooltip']}" for name, (_, settings) in entries.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(ROOT, "web", "docs")
    for contract in load().older.NODES:
        Path(folder, f"{contract.id}.md").write_text(page(contract), encoding="utf-8")


if __name__ == "__main__":
    main()
