"""One HTML page of a result, with everything inside: tables, plots, sheets, and the scores of every picture."""

from __future__ import annotations

import json
from html import escape

from .charts import Point, chart
from .html import figure, head, table
from .scores import MEASURES
from .sheets import best_and_worst, every_nth
from .table import TITLES, Result, about, cell, columns, paired, paper_rows, told
from .work import Job

SHOWN = 50  # rows of the table of pictures at once: a browser lays out all that it is given
SCRIPT = """let by=-1,down=true;const body=document.querySelector('#pictures tbody');
function show(){body.innerHTML=rows.slice(0,SHOWN).map(r=>'<tr>'+r.map(v=>'<td>'+(v===null?'-':v)+'</td>').join('')
+'</tr>').join('')}
function sort(n){down=n===by?!down:true;by=n;const s=down?-1:1;rows.sort((a,b)=>a[n]===b[n]?0:a[n]===null?1:
b[n]===null?-1:(a[n]<b[n]?-s:s));show()}
show()"""


def to_html(job: Job, result: Result) -> str:
    systems = [series for series in job.series if not series.is_text]
    sheets = dict([every_nth(job, systems)])
    for series in systems:
        sheets |= best_and_worst(job, series, result["scores"][series.name])
    parts = [
        head("Image prompts, measured"), f"<p>{escape(about(result))}</p>",
        f"<p>Intervals of {100 * result['protocol']['covered']:g} %, by bootstrap over references.</p>",
        *_systems(result), *_with_text(result), *_not_measured(result), "<h2>Pictures</h2>",
        *(figure(title, data) for title, data in sheets.items()),
        *_every_picture(result),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _systems(result: Result) -> list[str]:
    rows, others = result["systems"], result["not_as_in_the_paper"]
    names = columns(rows)
    heads = ["system", "parameters", "references", "samples", *(TITLES[name] for name in names)]
    body = [
        [row["name"], row["parameters"], row["references"], row["samples"], *(cell(row["figures"], n) for n in names)]
        for row in rows
    ]
    found = [table(heads, body)]
    first, *more = [row["name"] for row in rows]
    if more:
        made = {name: paired(result, first, name) for name in more}
        shared = [name for name in MEASURES if any(name in one for one in made.values())]
        found.append(f"<p>Against {escape(first)}, paired by references:</p>")
        body = [[name, *(told(one.get(measure)) for measure in shared)] for name, one in made.items()]
        found.append(table(["system", *(TITLES[name] for name in shared)], body))
    said = f"another protocol: {'; '.join(others)}" if others else "the same protocol"
    found += [f"<p>The paper's rows, of {escape(said)}.</p>", table(*paper_rows(), kind="paper")]
    return found


def _with_text(result: Result) -> list[str]:
    rows = result["with_text"]
    if not rows:
        return []
    names = columns(rows)
    prompts = ", ".join(map(repr, result["protocol"]["text_prompts"]))
    body = [
        [row["name"], f"{row['weight']:g}", row["references"], *(cell(row["figures"], n) for n in names)]
        for row in rows
    ]
    plots = []
    for name in [name for name in ("clip_t", "clip_i", "dino_i") if name in names]:
        lines: dict[str, list[Point]] = {}
        for row in rows:
            if one := row["figures"].get(name):
                lines.setdefault(row["name"], []).append(Point(row["weight"], one["value"], one["low"], one["high"]))
        plots.append(chart(TITLES[name], lines))
    heads = ["system", "weight", "references", *(TITLES[name] for name in names)]
    return [f"<h2>With a text</h2><p>{escape(prompts)}</p>", *plots, table(heads, body)]


def _not_measured(result: Result) -> list[str]:
    found = result["not_measured"].items()
    items = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in found)
    return [f"<h2>Not measured</h2><ul>{items}</ul>"] if items else []


def _every_picture(result: Result) -> list[str]:
    """Every sample of every reference; sorted by a click on a head."""
    scores = result["scores"]
    names = [name for name in MEASURES if name != "diversity" and any(name in one for one in scores.values())]
    rows = []
    for series, all_ in scores.items():
        count, samples = _size(all_)
        for place in range(count):
            for sample in range(samples):
                values = [all_[name][place][sample] if name in all_ else None for name in names]
                short = [value if value is None else round(value, 3) for value in values]
                rows.append([series, result["keys"][place], sample, *short])
    heads = "".join(
        f"<th onclick='sort({number})'>{escape(title)}</th>"
        for number, title in enumerate(["series", "reference", "sample", *(TITLES[name] for name in names)])
    )
    data = json.dumps(rows, separators=(",", ":")).replace("</", "<\\/")
    return [
        f"<h2>Every picture</h2><p>{len(rows):,} pictures; the first {SHOWN} are shown. Click a head to sort.</p>",
        f"<table id='pictures'><thead><tr>{heads}</tr></thead><tbody></tbody></table>",
        f"<script>const SHOWN={SHOWN},rows={data};{SCRIPT}</script></html>",
    ]


def _size(scores: dict[str, list[list[float | None]]]) -> tuple[int, int]:
    """References and samples of a series' scores."""
    wide = next((rows for name, rows in scores.items() if name != "diversity"), [])
    return len(wide), len(wide[0]) if wide else 0
