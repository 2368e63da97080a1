"""`python -m pocket.evidence`: measure the claims and the controls on pocket; writes pages with tables and sheets.

    python -m pocket.evidence                    a draft in out/pocket/evidence, on the references of development
    python -m pocket.evidence --final --check    docs/evidence.md, as `make evidence`; fails where a bar is missed
    python -m pocket.evidence layers --again     this claim alone, its pictures made anew
    python -m pocket.evidence controls --final   the controls alone: docs/controls/evidence.md
    python -m pocket.evidence pictures           the pictures of docs/controls and the help panels

Pictures that are there are kept, so an interrupted run goes on, and one claim is measured again in seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tqdm.auto import tqdm

from ..places import ROOT, Places
from ..world.scenes import DEVELOP, FINAL
from . import alone, card, few, fine, layers, report, reuse, ruler, structure, together
from .claim import Bench, Claim
from .controls import page, pictures
from .figures import Findings
from .orders import Order
from .studio import Studio

CLAIMS = tuple(room.CLAIM for room in (ruler, alone, fine, together, reuse, structure, few, layers))
ALL = (*CLAIMS, *page.CLAIMS)
CONTROLS, PICTURES = "controls", "pictures"  # all claims of the controls, and what their pages show


def main() -> int:
    options = read_options()
    places = Places(options.weights)
    if options.claims == [PICTURES]:
        pictures.write(Studio(places), ROOT / "web" / "docs" / "pictures")
        return 0
    studio, folder = Studio(places), ROOT / "docs" if options.final else places.work / "evidence"
    sheets = folder / "evidence"
    world = FINAL if options.final else DEVELOP
    claims = [in_world(claim, world, options.limit) for claim in ALL if claim.name in options.claims]
    began = time.monotonic()
    try:
        make_all(studio, [order for claim in claims for order in claim.orders.values()], options.again)
        for claim in claims:
            measure(studio, claim, sheets)
        page.write_page(folder / "controls" / "evidence.md", sheets, options.final)
        bars = report.write_page(folder / "evidence.md", sheets, CLAIMS, options.final, places)
        if options.final:
            card.fill(places, bars)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*bars, sep="\n")
    missing = [claim.name for claim in ALL if not report.is_there(sheets, claim)]
    missed = [bar for bar in bars if not bar.is_reached]
    print(
        f"{folder / 'evidence.md'}: {len(bars) - len(missed)} of {len(bars)} bars reached, "
        f"{time.monotonic() - began:.0f} s" + (f"; not measured: {', '.join(missing)}" if missing else "")
    )
    return int(options.check and bool(missed or missing))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pocket.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [claim.name for claim in ALL]
    words = [*names, CONTROLS, PICTURES]
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(words)}; all claims by default")
    parser.add_argument("--final", action="store_true", help="the references kept for the end; writes docs/evidence.md")
    parser.add_argument("--check", action="store_true", help="fail where a bar is missed or a claim not measured")
    parser.add_argument("--again", action="store_true", help="make the pictures anew")
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="at most N pictures of each kind: for a quick look"
    )
    parser.add_argument("--weights", type=Path, default=Places.weights, help="folder of the weights")
    options = parser.parse_args()
    if unknown := set(options.claims) - set(words):
        parser.error(f"there is no claim {min(unknown)}: choose of {', '.join(words)}")
    if PICTURES in options.claims and len(options.claims) > 1:
        parser.error(f"{PICTURES} are made alone: leave the other names out")
    if options.final and options.limit:
        parser.error("--final measures all pictures: leave --limit out")
    if CONTROLS in options.claims:
        options.claims += [claim.name for claim in page.CLAIMS]
    options.claims = options.claims or names
    return options


def in_world(claim: Claim, world: int, limit: int) -> Claim:
    """The claim on the references of a world, with at most `limit` pictures of each kind (0: all)."""
    orders = {
        name: dataclasses.replace(order, world=world, count=min(order.count, limit or order.count))
        for name, order in claim.orders.items()
    }
    return dataclasses.replace(claim, orders=orders)


def make_all(studio: Studio, orders: Iterable[Order], again: bool = False) -> None:
    """Make the pictures that are not there."""
    wanted = [order for order in dict.fromkeys(orders) if again or not studio.path(order).exists()]
    with tqdm(total=sum(order.count for order in wanted), desc="pictures", unit="picture", smoothing=0.1) as bar:
        for order in wanted:
            for done in studio.make(order):
                bar.update(done)


def measure(studio: Studio, claim: Claim, sheets: Path) -> None:
    made = {name: studio.made(order).first(claim.most) for name, order in claim.orders.items()}
    bench = Bench(studio, made, sheets)
    found = Findings(claim.title)
    claim.measure(bench, found)
    found.save(sheets / f"{claim.name}.json")
    print("\n".join([f"\n## {claim.title}", "", *found.lines]))


if __name__ == "__main__":
    sys.exit(main())
