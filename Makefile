# Everything here works from a fresh clone without a step by hand; a second call reuses what is there.
PYTHON ?= python3
# The torch build that fits the platform, e.g. TORCH="torch torchvision --index-url URL-of-a-CUDA-build".
TORCH ?= torch==2.14.1 torchvision==0.29.1

BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: setup demo check check-nodes check-others test test-nodes test-others bench kill-test evaluation-kill-test lint evidence table same

setup: $(STAMP)

# torchaudio and DeepSpeed are installed apart, so that neither moves torch nor compiles kernels.
$(STAMP): pyproject.toml requirements.txt tools/comfyui.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(TORCH)
	$(BIN)/pip install --no-deps torchaudio==2.11.0
	$(BIN)/python tools/comfyui.py --requirements .venv/comfyui-requirements.txt
	$(BIN)/pip install -r .venv/comfyui-requirements.txt setuptools wheel ninja -e '.[trainer,test]'
	DS_BUILD_OPS=0 $(BIN)/pip install --no-build-isolation deepspeed==0.19.8
	touch $@

demo: setup
	$(BIN)/python -m demo

# The inner loop, under two minutes: lint, and every test that takes no seconds of its own, in two processes.
check: setup
	+$(MAKE) --no-print-directory -j3 lint check-nodes check-others

FAST := -q -m "not slow and not clock and not large and not memory and not gpu"
check-nodes: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest $(FAST) tests/nodes
check-others: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest $(FAST) tests --ignore tests/nodes --ignore tests/server

# All tests: two processes side by side first, then what needs the memory or the clock for itself. 24 GB are enough.
APART := -m "not gpu and not large and not memory and not clock"
test: setup
	+$(MAKE) --no-print-directory -j2 test-nodes test-others
	$(BIN)/pytest tests/core tests/nodes -m clock
	$(BIN)/pytest tests/nodes/test_parity.py tests/nodes/test_families.py -m large
	$(BIN)/pytest tests/nodes --ignore tests/nodes/test_parity.py --ignore tests/nodes/test_families.py -m large
	$(BIN)/pytest tests/nodes -m memory
	$(BIN)/pytest tests/server -m "not gpu and not memory"
	$(BIN)/pytest tests/server -m memory
test-nodes: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/nodes --ignore-glob "*/test_older_*" $(APART)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/nodes/test_older_*.py $(APART)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/core tests/test_*.py $(APART)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/pocket
test-others: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/training

bench: setup
	set -e; for script in bench/*.py; do $(BIN)/python $$script --check; done
	$(BIN)/python bench/attention.py --host --check

# Forty kills, every way in every moment; takes long, so its output is committed. Interrupted, it goes on; to begin
# anew remove out/kill-test.
kill-test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.kill --folder out/kill-test --out docs/kill-test.md

# An evaluation killed ten times, in one and two processes in turns, ends in the same bytes.
evaluation-kill-test: setup
	$(BIN)/python -m tests.support.kill_evaluation --kills 10

# Pocket's adapters by `python -m trainer evaluate`: docs/evaluation/. Interrupted, it goes on. On a GPU:
# make table TABLE="--device cuda --batch 256"
table: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pocket.table $(TABLE)

# The paper's claims on pocket, with pictures that are kept in out/pocket: docs/evidence.md.
evidence: setup
	$(BIN)/python -m pocket.evidence --final --check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p out/typing && ln -sfn ../.. out/typing/pack
	$(BIN)/mypy

# A refactor changed nothing: `make same BASE=<revision>` runs that revision beside this tree, PARITY=--parity the
# parity tests' figures too.
same: setup
	test -n "$(BASE)" || { echo "Name the revision to compare with: make same BASE=<revision>" >&2; exit 1; }
	git worktree remove --force out/same 2>/dev/null || true
	git worktree add --detach out/same $(BASE)
	ln -s $(CURDIR)/.venv $(CURDIR)/.comfyui out/same
	$(BIN)/python -m tools.same out/same $(PARITY)
