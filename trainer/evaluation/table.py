"""From scores to a result: figures with intervals, differences, the paper's rows; as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .figures import Difference, difference, mean, of_references
from .protocol import CLIP_SCORE, JUDGE, PAPER, from_paper
from .scores import MEASURES
from .systems import NO_ADAPTER, Drawn, Series, fingerprint
from .work import Job

LIKE_JUDGE = (JUDGE, "ViT-L-14/openai", "clip-vit-large-patch14")
PAPER_COUNT = 5_000
GAINED = {
    "style_gained": "style gained over the base alone",
    "content_leaked": "content gained over the base alone",
    "gained_less_leaked": "style gained less content leaked",
}
TITLES = {name: measure.title for name, measure in MEASURES.items()} | {
    "style_gained": "style gained", "content_leaked": "content leaked", "gained_less_leaked": "gained - leaked",
}  # fmt: skip
Result = dict[str, Any]


def make_result(job: Job, off: Mapping[str, str]) -> Result:
    """The whole result, the same whoever made the pictures. off: what was not measured, and why."""
    protocol = job.protocol
    scores = {series.name: read_scores(job, series) for series in job.series}
    values = {name: {one: of_references(rows) for one, rows in all_.items()} for name, all_ in scores.items()}
    for series in job.series:
        if not series.is_text and series.name != NO_ADAPTER:
            values[series.name] |= gained(values[series.name], values.get(NO_ADAPTER, {}))
    judges = {kind: {"name": _plain_name(name), "digest": fingerprint(name)} for kind, name in job.judges.named.items()}
    references = job.references
    data = {"name": references.name, "references": len(references), "digest": references.digest}
    others = from_paper(protocol.values())
    if references.name != "val2017" or len(references) != PAPER_COUNT:
        others.append(f"{len(references)} pictures of {references.name}, the paper's {PAPER_COUNT} of val2017")
    if judges.get("clip", {}).get("name") not in LIKE_JUDGE:
        others.append(f"CLIP {judges.get('clip', {}).get('name', 'none')}, the paper's ViT-L/14")
    return {
        "protocol": protocol.values(),
        "data": data | {"left_out": list(references.left_out)},
        "judges": judges,
        "not_measured": dict(off),
        "not_as_in_the_paper": others,
        "systems": [_row(job, series, values[series.name]) for series in job.series if not series.is_text],
        "with_text": [_row(job, series, values[series.name]) for series in job.series if series.is_text],
        "keys": [item.key for item in references.items],
        "scores": scores,
    }


def read_scores(job: Job, series: Series) -> dict[str, list[list[float | None]]]:
    """Of all the references of a series, by measure."""
    found: dict[str, list[list[float | None]]] = {}
    for batch in job.batches:
        if items := job.of(series, batch):
            scores = job.store.read_scores(series, batch, items)
            assert scores is not None, "all batches are scored"
            for name in (name for name in MEASURES if name in scores):
                found.setdefault(name, []).extend(scores[name])
    return found


def gained(mine: Mapping[str, Tensor], null: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Style gained and content leaked over the base alone, for each reference; nothing where either is missing."""
    if not {"style", "content"} <= mine.keys() & null.keys():
        return {}
    style, content = mine["style"] - null["style"], mine["content"] - null["content"]
    return {"style_gained": style, "content_leaked": content, "gained_less_leaked": style - content}


def _row(job: Job, series: Series, values: Mapping[str, Tensor]) -> dict[str, Any]:
    protocol = job.protocol
    figures = {name: mean(one, protocol.resamples, protocol.covered) for name, one in values.items()}
    return {
        "name": series.system.name,
        "parameters": series.system.parameters,
        "weight": series.weight,
        "samples": series.samples,
        "references": series.references,
        "is_drawn": isinstance(series.system, Drawn),
        "about": series.shaping(protocol),
        "figures": {name: dataclasses.asdict(figure) for name, figure in figures.items() if figure},
    }


def to_json(result: Result) -> str:
    """A file to read: everything indented but the scores, a line for each."""
    head = json.dumps({key: value for key, value in result.items() if key not in ("scores", "keys")}, indent=1)
    series = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(one)}: {json.dumps(rows)}" for one, rows in scores.items())
        + "\n  }"
        for name, scores in result["scores"].items()
    ]
    keys = json.dumps(result["keys"])
    return f'{head[:-2]},\n "keys": {keys},\n "scores": {{\n' + ",\n".join(series) + "\n }\n}\n"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures that any of some rows has, in the table's order."""
    return [name for name in TITLES if any(name in row["figures"] for row in rows)]


def cell(figures: Mapping[str, Mapping[str, float]], name: str) -> str:
    """A figure with its interval; a dash where there is none."""
    one = figures.get(name)
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" if one else "-"


def to_markdown(result: Result) -> str:
    rows, texts, off = result["systems"], result["with_text"], result["not_as_in_the_paper"]
    covered = f"{100 * result['protocol']['covered']:g} %"
    names = columns(rows)
    body = [
        [row["name"], row["parameters"], str(row["references"]), str(row["samples"]),
         *(cell(row["figures"], name) for name in names)]
        for row in rows
    ]  # fmt: skip
    head = ["system", "parameters", "references", "samples", *(TITLES[name] for name in names)]
    lines = ["# Image prompts, measured", "", f"{about(result)} Intervals: {covered}, bootstrap over references.", ""]
    if off:
        lines += [*_table(head, body), "", f"The paper's rows are of another protocol ({'; '.join(off)}), so they are "
                  "no rows of that table:", "", *_table(*paper_rows())]  # fmt: skip
    else:
        lines += _table(head, [*body, *([name, parameters, "5000", "4", *_paper_cells(names, score, clip_i)]
                                        for name, parameters, score, clip_i in PAPER)])  # fmt: skip
    if found := _differences(result):
        lines += ["", f"Against {rows[0]['name']}, of the same references (paired; beyond chance: the interval leaves "
                  "out 0):", "", *found]  # fmt: skip
    if texts:
        names = columns(texts)
        lines += ["", f"With a text ({', '.join(map(repr, result['protocol']['text_prompts']))}):", ""]
        lines += _table(
            ["system", "weight", "references", *(TITLES[name] for name in names)],
            [[row["name"], f"{row['weight']:g}", str(row["references"]), *(cell(row["figures"], n) for n in names)]
             for row in texts],
        )  # fmt: skip
    if result["not_measured"]:
        lines += ["", "Not measured:", "", *(f"- {name}: {why}" for name, why in result["not_measured"].items())]
    return "\n".join(lines) + "\n"


def about(result: Result) -> str:
    """The protocol in a few sentences."""
    protocol, data = result["protocol"], result["data"]
    text = repr(protocol["prompt"]) if protocol["prompt"] else "empty text"
    judges = ", ".join(f"{kind} by {judge['name']}" for kind, judge in result["judges"].items())
    left = f" Left out: {', '.join(data['left_out'])}." if data["left_out"] else ""
    which = "first" if protocol["caption"] == 0 else f"number {protocol['caption']} (from 0)"
    samples = f"{protocol['samples']} {'sample' if protocol['samples'] == 1 else 'samples'}"
    return (
        f"{data['references']} references of {data['name']}, the {which} caption of each by id, "
        f"{samples} each, {protocol['sampler']}, {protocol['steps']} steps, guidance "
        f"{protocol['guidance']:g}, {text}, weight {protocol['weight']:g}, seed {protocol['seed']}.{left} "
        f"Judges: {judges}. CLIP-I and CLIP-T are cosines, CLIPScore is {CLIP_SCORE:g} times CLIP-T; "
        "wrong reference: the one before."
    )


def paper_rows() -> tuple[list[str], list[list[str]]]:
    """Head and rows of the paper's Table 1; its CLIP-T is the CLIPScore, from which the cosine follows."""
    head = ["the paper's Table 1", "parameters", "CLIP-I", "CLIP-T (cosine, by division)", "CLIPScore"]
    return head, [
        [row.name, row.parameters, f"{row.clip_i:.3f}", f"{row.clip_score / CLIP_SCORE:.3f}", f"{row.clip_score:.3f}"]
        for row in PAPER
    ]


def _paper_cells(names: Sequence[str], clip_score: float, clip_i: float) -> list[str]:
    known = {"clip_i": clip_i, "clip_t": clip_score / CLIP_SCORE, "clip_score": clip_score}
    return [f"{known[name]:.3f}" if name in known else "-" for name in names]


def paired(result: Result, first: str, second: str) -> dict[str, Difference]:
    """The second system less the first, by measure."""
    protocol, scores = result["protocol"], result["scores"]
    found = {}
    for name in (name for name in MEASURES if name in scores[first] and name in scores[second]):
        one, other = of_references(scores[first][name]), of_references(scores[second][name])
        if made := difference(one, other, protocol["resamples"], protocol["covered"]):
            found[name] = made
    return found


def _differences(result: Result) -> list[str]:
    first, *others = [row["name"] for row in result["systems"]]
    made = {name: paired(result, first, name) for name in others}
    names = [name for name in MEASURES if any(name in one for one in made.values())]
    rows = [[name, *(told(one.get(measure)) for measure in names)] for name, one in made.items()]
    return _table(["system", *(TITLES[name] for name in names)], rows) if rows else []


def told(one: Difference | None) -> str:
    """A difference in words: "+0.010 (+0.002 to +0.018), beyond chance"."""
    if one is None:
        return "-"
    verdict = "beyond chance" if one.is_real else "no more than chance"
    return f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}), {verdict}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def _plain_name(name: str) -> str:
    """Of a tag all, of a path the last part: a result does not tell where a machine keeps its files."""
    return name if fingerprint(name) == name else name.rstrip("/").rpartition("/")[2]
