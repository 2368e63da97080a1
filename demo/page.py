"""What `make demo` shows as a page that explains itself, and says how to open each graph."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from demo.sheet import LARGE_SIDE, SIDE, enlarged
from demo.showcase import LARGE, SHOWN, Row, Section
from tools.server import PACK

STYLE = f"""
:root {{ --ink: #1d1d1f; --gray: #6e6e73; --line: #e3e3e6; }}
body {{ margin: 0; font: 17px/1.5 system-ui, sans-serif; color: var(--ink); background: #f5f5f7; }}
main {{ max-width: 1040px; margin: 0 auto; padding: 48px 24px 96px; }}
h1 {{ font-size: 36px; line-height: 1.15; margin: 0 0 12px; }}
h2 {{ font-size: 23px; margin: 0 0 4px; }}
p, ol {{ margin: 0 0 20px; max-width: 46em; }}
section {{ background: white; border: 1px solid var(--line); border-radius: 14px; padding: 28px; margin: 28px 0; }}
.row {{ display: grid; gap: 8px; align-items: center; margin: 8px 0; }}
.row {{ grid-template-columns: 128px repeat({SHOWN}, 1fr); }}
.large .row {{ grid-template-columns: 128px repeat({LARGE}, 1fr); }}
.given img {{ outline: 2px solid #0071e3; outline-offset: 1px; }}
.label, .open {{ font-size: 14px; color: var(--gray); padding-right: 8px; }}
.open {{ margin: 16px 0 0; }}
.row img {{ width: 100%; display: block; border-radius: 6px; }}
.caption {{ font-size: 13px; color: var(--gray); text-align: center; padding-top: 3px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: 6px 22px 6px 0; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400; }}
th {{ color: var(--gray); }} td:first-child, th:first-child {{ text-align: left; }}
table {{ display: block; overflow-x: auto; }}
@media (max-width: 700px) {{
main {{ padding: 16px 8px; }} section {{ padding: 14px; }} .label {{ grid-column: 1 / -1; }}
.row {{ gap: 4px; grid-template-columns: repeat({SHOWN}, 1fr); }}
.large .row {{ grid-template-columns: repeat({LARGE}, 1fr); }}
}}
"""
INTRODUCTION = """
<h1>Prompt with a picture</h1>
<p>A diffusion model draws what words say. IP-Adapter adds a second prompt: a picture. The model itself stays as it is;
a small adapter beside it turns the picture into a few tokens that every cross-attention layer reads next to the words.
</p>
<p><b>What you see.</b> All results below were made by this pack's nodes in a real ComfyUI, a moment ago, with
<i>pocket</i>, a small model that comes with the pack. It knows one kind of picture, a shape on a background, so that
everyone can see whether a picture was followed. Blue frames: what the model is given. No training ever saw these
references, nor any picture with their combination of shape, colour and pattern.</p>
<p><b>What follows for SD1.5, SDXL and Kolors.</b> The same nodes and the same code, with the same kind of files; the
model is larger, and knows photographs and paintings instead of shapes. For adapters of their size the pack's tests hold
these nodes to the method's reference implementation, to a few millionths. How good a picture looks is then up to the
model and the adapter that you load.</p>
"""
CLOSING = f"""
<section><h2>Open it yourself</h2>
<ol><li>Put the pack's folder into ComfyUI's <code>custom_nodes</code> and start ComfyUI.</li>
<li>Open <i>Workflow → Browse Templates → {PACK}</i> and choose one of the graphs named above.</li>
<li>Run. Nothing is downloaded and no GPU is needed. Then change the reference, the text or the weight.</li></ol>
<p>The same browser has graphs for SD1.5 and SDXL, which say what to download. A node's help, the button with the i,
shows what each of its inputs does.</p></section>
"""
Table = dict[str, dict[str, float]]


def write_page(sections: Sequence[Section], table: Table, count: int, path: Path) -> None:
    """The rows and the table as one HTML file that needs nothing else."""
    parts = [INTRODUCTION, *map(_section, sections), _table(table, count), CLOSING]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>IP-Adapter: prompt with a picture</title><style>{STYLE}</style>"
    )
    content = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'
    path.write_text(content, encoding="utf-8")


def _section(section: Section) -> str:
    size = LARGE_SIDE if section.is_large else SIDE
    rows = "".join(_row(row, size) for row in section.rows)
    return (
        f'<section class="{"large" if section.is_large else ""}"><h2>{html.escape(section.title)}</h2>'
        f"<p>{html.escape(section.text)}</p>{rows}"
        f'<p class="open">Open it yourself: template <b>{html.escape(section.graph)}</b></p></section>'
    )


def _row(row: Row, size: int) -> str:
    cells = []
    for place, picture in enumerate(row.pictures[:SHOWN]):
        caption = f'<div class="caption">{html.escape(row.captions[place])}</div>' if row.captions else ""
        kind = ' class="given"' if place < row.given else ""
        words = html.escape(row.captions[place] if row.captions else f"{row.label}, {place + 1}")
        cells.append(f'<div{kind}><img alt="{words}" src="{_data(picture, size)}">{caption}</div>')
    return f'<div class="row"><div class="label">{html.escape(row.label)}</div>{"".join(cells)}</div>'


def _data(picture: Tensor, size: int) -> str:
    content = io.BytesIO()
    enlarged(picture, size).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _table(table: Table, count: int) -> str:
    names = list(next(iter(table.values())))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *names])
    body = "".join(
        f"<tr><td>{html.escape(label)}</td>{''.join(f'<td>{share:.0%}</td>' for share in shares.values())}</tr>"
        for label, shares in table.items()
    )
    return (
        f"<section><h2>How often it worked</h2><p>Of all {count} references, shown or not: the share of pictures that "
        "show what they were given (the shape of the words or of the silhouette, where there is one; else all of the "
        "reference). A classifier tells, and it may also say that it cannot.</p>"
        f"<table><tr>{head}</tr>{body}</table></section>"
    )
