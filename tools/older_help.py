"""Writes the help pages of the older nodes, web/docs/ID.md, from their table: `python -m tools.older_help`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from tools.comfyui import ROOT, find_or_fetch

SAME = (
    "For graphs that were made with the older IP-Adapter nodes, with the same inputs and the same numbers. In new "
    "graphs use {ours}. `docs/older_graphs.md` in the pack's folder says what differs, and why."
)


def contracts() -> Any:
    """The table of the older nodes, from the pack as ComfyUI loads it."""
    sys.path.insert(0, str(find_or_fetch()))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    importlib.import_module("pack.nodes").folders.register()
    return importlib.import_module("pack.nodes.older.contract")


def page(contract: Any) -> str:
    """The help of one node."""
    lines = [f"# {contract.title}", "", SAME.format(ours=contract.ours), ""]
    for entries in contract.input_types().values():
        lines += [f"- **{name}**: {settings['tooltip']}" for name, (_, settings) in entries.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(ROOT, "web", "docs")
    for contract in contracts().NODES:
        Path(folder, f"{contract.id}.md").write_text(page(contract), encoding="utf-8")


if __name__ == "__main__":
    main()
