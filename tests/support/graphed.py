"""`python -m trainer` with the graph's engine on a CPU: its buffers, without a capture; a user gets plain there."""

from __future__ import annotations

import sys

from trainer.__main__ import main
from trainer.run import parts

if __name__ == "__main__":
    parts.choose_engine = lambda *given: ("graph", "engine: a graph's buffers")
    sys.exit(main(sys.argv[1:]))
