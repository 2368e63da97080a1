# Everything here works from a fresh clone without a step by hand; a second call reuses what is there.
PYTHON ?= python3
# The torch build that fits the platform, e.g. TORCH="torch torchvision --index-url URL-of-a-CUDA-build".
TORCH ?= torch==2.14.1 torchvision==0.29.1

BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: setup demo test bench kill-test lint evidence

setup: $(STAMP)

# torchaudio and DeepSpeed are installed apart, so that neither moves torch nor compiles kernels.
$(STAMP): pyproject.toml requirements.txt demo/comfyui.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(TORCH)
	$(BIN)/pip install --no-deps torchaudio==2.11.0
	$(BIN)/python demo/comfyui.py --requirements .venv/comfyui-requirements.txt
	$(BIN)/pip install -r .venv/comfyui-requirements.txt setuptools wheel ninja -e '.[trainer,test]'
	DS_BUILD_OPS=0 $(BIN)/pip install --no-build-isolation deepspeed==0.19.8
	touch $@

demo: setup
	$(BIN)/python -m demo

# In several processes, so that the memory of one is free for the next: 24 GB are enough.
LARGE := tests/test_families.py tests/test_parity.py
MEMORY := tests/test_family_memory.py
SERVER := tests/test_page.py tests/test_server.py tests/test_hostile_server.py tests/test_workflows.py
test: setup
	$(BIN)/pytest tests/core $(filter-out $(SERVER) $(LARGE) $(MEMORY),$(wildcard tests/test_*.py))
	$(BIN)/pytest $(LARGE)
	$(BIN)/pytest $(SERVER)
	$(BIN)/pytest $(MEMORY)
	$(BIN)/pytest tests/training
	$(BIN)/pytest tests/pocket

bench: setup
	set -e; for script in bench/*.py; do $(BIN)/python $$script --check; done

# Twenty kills in each mode; takes long, so its output is committed.
kill-test: setup
	$(BIN)/python tests/training/kill.py --kills 20 --out docs/kill-test.md

# The paper's claims on pocket, with pictures that are kept in out/pocket: docs/evidence.md.
evidence: setup
	$(BIN)/python -m demo.pocket.evidence --final --check

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
