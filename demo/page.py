"""What `make demo` shows: one picture of all rows, and a page that explains them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from demo.showcase import SHOWN, Row, Section

ZOOM = 2
LEFT, GAP, TITLE = 230, 8, 54  # pixels: of the labels, between pictures, of a section's title
INK, GRAY, PAPER = "#1d1d1f", "#6e6e73", "#ffffff"
STYLE = """
:root { --ink: #1d1d1f; --gray: #6e6e73; --line: #e3e3e6; }
body { margin: 0; font: 17px/1.5 system-ui, sans-serif; color: var(--ink); background: #f5f5f7; }
main { max-width: 1040px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: 36px; line-height: 1.15; margin: 0 0 12px; }
h2 { font-size: 23px; margin: 0 0 4px; }
p { margin: 0 0 20px; max-width: 46em; }
.gray { color: var(--gray); }
section { background: white; border: 1px solid var(--line); border-radius: 14px; padding: 28px; margin: 28px 0; }
.row { display: grid; grid-template-columns: 128px repeat(8, 1fr); gap: 8px; align-items: center; margin: 8px 0; }
.row.given img { outline: 2px solid #0071e3; outline-offset: 1px; }
.label { font-size: 14px; color: var(--gray); padding-right: 8px; }
.row img { width: 100%; display: block; border-radius: 6px; }
.caption { font-size: 13px; color: var(--gray); text-align: center; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 6px 22px 6px 0; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400; }
th { color: var(--gray); } td:first-child, th:first-child { text-align: left; }
"""
INTRODUCTION = """
<h1>Prompt with a picture</h1>
<p>A diffusion model draws what words say. IP-Adapter adds a second prompt: a picture. The model itself stays as it is;
a small adapter beside it turns the picture into a few tokens that every cross-attention layer reads next to the words.
</p>
<p class="gray">All pictures below were made by this pack's nodes in a real ComfyUI, a moment ago, with <i>pocket</i>, a
small model that comes with it. Its world is simple, one shape on a background, so that everyone can see whether a
picture was followed. Blue frames: what the model is given. The references were never seen in any training, nor was any
picture with their combination of shape, colour and pattern. Shown are the first eight, not the best.</p>
"""
Table = dict[str, dict[str, float]]


def write_sheet(sections: Sequence[Section], path: Path) -> None:
    """All rows as one PNG."""
    side = 64 * ZOOM
    width = LEFT + SHOWN * (side + GAP) + GAP
    rows = sum(len(section.rows) for section in sections)
    captions = sum(bool(row.captions) for section in sections for row in section.rows)
    sheet = Image.new("RGB", (width, rows * (side + GAP) + len(sections) * TITLE + captions * 22 + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(22), ImageFont.load_default(15)
    y = 0
    for section in sections:
        pen.text((GAP, y + TITLE - 12), section.title, INK, large, anchor="ls")
        y += TITLE
        for row in section.rows:
            pen.text((GAP, y + side // 2), row.label, GRAY, small, anchor="lm")
            for column, picture in enumerate(row.pictures[:SHOWN]):
                x = LEFT + column * (side + GAP)
                sheet.paste(enlarged(picture), (x, y))
                if row.captions:
                    pen.text((x + side // 2, y + side + 12), row.captions[column], GRAY, small, anchor="mm")
            y += side + GAP + (22 if row.captions else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def enlarged(picture: Tensor) -> Image.Image:
    """[3, 64, 64] of 0..1, larger and smooth."""
    pixels = (picture * 255).round().byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels).resize((64 * ZOOM, 64 * ZOOM), Image.Resampling.LANCZOS)


def write_page(sections: Sequence[Section], table: Table, count: int, path: Path) -> None:
    """The rows and the table as one HTML file that needs nothing else."""
    parts = [INTRODUCTION, *map(_section, sections), _table(table, count)]
    head = f'<meta charset="utf-8"><title>IP-Adapter: prompt with a picture</title><style>{STYLE}</style>'
    content = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'
    path.write_text(content, encoding="utf-8")


def _section(section: Section) -> str:
    rows = "".join(map(_row, section.rows))
    return f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>{rows}</section>"


def _row(row: Row) -> str:
    cells = []
    for place, picture in enumerate(row.pictures[:SHOWN]):
        caption = f'<div class="caption">{html.escape(row.captions[place])}</div>' if row.captions else ""
        cells.append(f'<div><img alt="" src="{_data(picture)}">{caption}</div>')
    kind = "row given" if row.is_given else "row"
    return f'<div class="{kind}"><div class="label">{html.escape(row.label)}</div>{"".join(cells)}</div>'


def _data(picture: Tensor) -> str:
    content = io.BytesIO()
    enlarged(picture).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _table(table: Table, count: int) -> str:
    names = list(next(iter(table.values())))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *names])
    body = "".join(
        f"<tr><td>{html.escape(label)}</td>{''.join(f'<td>{share:.0%}</td>' for share in shares.values())}</tr>"
        for label, shares in table.items()
    )
    return (
        f"<section><h2>How often it worked</h2><p>Of {count} references: the share of pictures that show what they "
        "were given (the shape of the words or of the silhouette, where there is one; else all of the reference). A "
        "classifier tells, and it may also say that it cannot.</p>"
        f"<table><tr>{head}</tr>{body}</table></section>"
    )
