"""What the pages of results and of runs share: their style, tables, and pictures inside of the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

QUALITY = 80  # of a JPEG
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#202024}
table{border-collapse:collapse;margin:1em 0;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:3px 9px;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}th[onclick]{cursor:pointer;text-decoration:underline dotted}
.paper td{color:#6e6e74}img{max-width:100%}svg text{font-size:11px;fill:currentColor}svg .t{font-weight:600}
svg .g{stroke:#ddd;fill:none}figure{margin:1em 2em 1em 0;display:inline-block;vertical-align:top}
figcaption{color:#6e6e74}"""


def head(title: str) -> str:
    """The beginning of a page."""
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"\n<style>{STYLE}</style><h1>{escape(title)}</h1>"
    )


def table(head: Sequence[object], rows: Sequence[Sequence[object]], kind: str = "") -> str:
    """A table of values, escaped. kind: a class of the style."""

    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(f"<{tag}>{escape(str(value))}</{tag}>" for value in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table class='{kind}'><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def figure(title: str, uri: str) -> str:
    """A picture with its title."""
    return f"<figure><img src='{uri}' alt=''><figcaption>{escape(title)}</figcaption></figure>"


def jpeg(picture: Image.Image) -> str:
    """A picture as the URI of a JPEG."""
    data = BytesIO()
    picture.save(data, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
