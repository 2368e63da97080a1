"""What was done to a run by a kill test, and what came of it: as values, and as docs/kill-test.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MOMENTS = ("cache", "train", "save", "validation", "grid")
SAVE_EVERY_STEPS = 4


@dataclass(frozen=True)
class Kill:
    """signal: its name. target: one of runs.TARGETS. moment: cache, train, save, validation or grid."""

    signal: str
    target: str
    moment: str

    @property
    def is_caught(self) -> bool:
        """Whether the trainer answers by a save: ranks notice the end of their launcher."""
        return self.moment != "cache" and (self.signal != "SIGKILL" or self.target == "launcher")


@dataclass(frozen=True)
class Done:
    """A kill that was done. step, saved: the newest logged and saved (of a cache: its files) when it was sent.

    reached, after: the same when all had ended. exit: of the process that was started. faults: what was not as it
    should be.
    """

    kill: Kill
    step: int
    saved: int
    reached: int
    after: int
    exit: int
    faults: list[str]


@dataclass(frozen=True)
class Outcome:
    """What came of a mode. largest: difference of any number of the final states. others: what is not the same."""

    done: list[Done]
    planned: int
    tensors: int = 0
    numbers: int = 0
    largest: float = 0.0
    validations: tuple[int, int] = (0, 0)  # of the run that was killed, of the one left alone
    grids: tuple[int, int] = (0, 0)
    others: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.others and not any(one.faults for one in self.done)


def report(outcomes: Mapping[str, Outcome]) -> str:
    """The page: figures of all kills, a table by way and by moment of each mode, and how its run ended."""
    done = [one for outcome in outcomes.values() for one in outcome.done]
    planned = sum(outcome.planned for outcome in outcomes.values())
    counts = Counter(one.kill.moment for one in done)
    caught = [one for one in done if one.kill.is_caught]
    saved = sum(not one.faults for one in caught)
    others = [one for one in done if not one.kill.is_caught and one.kill.moment != "cache"]
    lines = [
        "# Kill test",
        "",
        "`make kill-test`, on two CPU cores: a cache and a training on a small base are stopped or killed, go on, and",
        "are stopped again; at the end they are compared with others that were left alone. A run saves every 4 steps,",
        "validates every 6 and makes a grid every 10. At each kill its first process is held still (SIGSTOP) where its",
        "own files say what it is doing, and these are looked at once more: the moment is the one that is named.",
        "",
        "| | |",
        "|---|---|",
        f"| kills | {len(done)} of {planned} |",
        f"| by moment | {', '.join(f'{name} {counts[name]}' for name in MOMENTS)} |",
        f"| lost more than the steps since the last save | {sum(map(_has_lost, done))} |",
        f"| caught: saved at the step reached, and said so | {saved} of {len(caught)} |",
        f"| not caught: steps lost, at most | {max((one.reached - one.after for one in others), default=0)} |",
        f"| whole files of a cache lost | {sum(one.saved - one.after for one in done if one.kill.moment == 'cache')} |",
        "| exit code other than docs/training.md says, a traceback, a process left | "
        f"{sum(bool(one.faults) for one in done)} |",
        "",
    ]
    for mode, outcome in outcomes.items():
        lines += _mode(mode, outcome)
    return "\n".join(lines)


def _mode(mode: str, outcome: Outcome) -> list[str]:
    ways = list(dict.fromkeys((one.kill.signal, one.kill.target) for one in outcome.done))
    names = [name for name in MOMENTS if any(one.kill.moment == name for one in outcome.done)]
    lines = [f"## {mode}: {len(outcome.done)} of {outcome.planned} kills", ""]
    lines += [
        "Newest step in the log when the signal was sent: step that is saved, exit code. Of a cache: whole files,"
    ]
    lines += ["then and after. The log is a step behind, two while one runs.", ""]
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for signal, target in ways:
        cells = []
        for name in names:
            its = [
                one
                for one in outcome.done
                if (one.kill.signal, one.kill.target, one.kill.moment) == (signal, target, name)
            ]
            cells.append("; ".join(f"{one.step}: {one.after}, {one.exit}{' FAULT' * bool(one.faults)}" for one in its))
        lines.append(f"| {signal} to the {target} | {' | '.join(cells)} |".replace("the every", "every"))
    lines += ["", *(f"FAULT: {fault}" for one in outcome.done for fault in one.faults)]
    if not outcome.tensors:
        return [*lines, "Not finished: the end is not compared yet.", ""]
    verdict = f"NOT equal: {', '.join(outcome.others)}" if outcome.others else "equal, bit for bit"
    shown = " and ".join(
        f"{made} {what}" if made == whole else f"{made} of {whole} {what}"
        for what, (made, whole) in (("validations", outcome.validations), ("grids", outcome.grids))
    )
    return [
        *lines,
        f"Final state, {outcome.tensors} tensors of {outcome.numbers:,} numbers, every loss, {shown}: {verdict}; "
        f"largest difference {outcome.largest:g}.",
        "",
    ]


def _has_lost(one: Done) -> bool:
    """Whether what was saved is gone, or more than a step that should have been saved."""
    return one.after < one.saved or (one.kill.moment != "cache" and one.reached - one.after > SAVE_EVERY_STEPS)
