"""In a process of its own: unpickles the attacks without care, to show that they are real. `... careless FOLDER`."""

from __future__ import annotations

import copyreg
import json
import pickle
import sys
from pathlib import Path

from tests.support.hostile.attacks import EXTENSION, attack, pickled


def main() -> None:
    copyreg.add_extension("os", "mkdir", EXTENSION)
    made = []
    for number, name in enumerate(attack(Path())):
        mark = Path(sys.argv[1], str(number))
        try:
            pickle.loads(pickled(name, mark))  # noqa: S301
        except Exception as error:  # noqa: BLE001  (some fail after their code has run)
            print(f"{name}: {error!r}", file=sys.stderr)
        if mark.exists():
            made.append(name)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
