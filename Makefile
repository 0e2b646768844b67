# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
# The rest are for developers. PYTHON=... picks another interpreter, DEVICE=cuda another device.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test wheel docs lint bench fuzz peer-test browser-test clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "saeaudit needs Python 3.11 or newer; try: make PYTHON=python3.12 demo" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Once: pip puts saeaudit, PyTorch and what the tests need into $(VENV)/; what it fetches follows."
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## the whole pipeline on the bundled SAEs: tables here and in demo/
	@mkdir -p demo && rm -f demo/summary.txt
	@$(call show,scan sample -o demo/sample.jsonl)
	@$(call show,scan sample/stitched -o demo/stitched.jsonl)
	@$(call show,mediators sample/stitched --scan demo/stitched.jsonl -o demo/exchanges.jsonl)
	@$(call show,mediators sample --max-tokens 200 -o demo/mediators.jsonl)
	@$(call show,score sample --scan demo/sample.jsonl --max-tokens 200 -o demo/score.jsonl)
	@$(call show,score sample --explain 17 -o demo/explained.jsonl)
	@$(BIN)/saeaudit report demo/sample.jsonl demo/mediators.jsonl demo/score.jsonl \
		demo/stitched.jsonl demo/exchanges.jsonl -o demo/report.html
	@echo "Two real SAEs are audited: tables in demo/summary.txt, the page to read is demo/report.html"

# Run a command of saeaudit, and show what it says to people; demo/summary.txt keeps that.
define show
echo "$$ saeaudit $(1)" | tee -a demo/summary.txt; \
$(BIN)/saeaudit $(1) 2> demo/.said || { cat demo/.said >&2; exit 1; }; \
tee -a demo/summary.txt < demo/.said; rm demo/.said; echo | tee -a demo/summary.txt
endef

wheel: $(VENV)/.installed  ## a wheel in dist/, to install elsewhere
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/saeaudit-*.whl

docs: $(VENV)/.installed  ## the documentation as a site, in site/; any warning is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would let warnings pass
	@echo "The site is in site/: open site/index.html, or run $(BIN)/mkdocs serve"

test: $(VENV)/.installed  ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(VENV)/.installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## time a scan against its peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/scan.py

MINUTES ?= 1
fuzz: $(VENV)/.installed  ## hostile inputs of six kinds, MINUTES each; TARGET=weights for one
	$(BIN)/python -m tests.fuzz $(TARGET) --minutes $(MINUTES)

browser-test: $(VENV)/.installed  ## open reports in Chromium; CHROMIUM=path takes one that is there
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	test -n "$(CHROMIUM)" || $(BIN)/python -m playwright install --with-deps chromium
	CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest tests/browser/check_report.py

clean:  ## remove what make made
	rm -rf $(VENV) .venv-peer demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis

peer-test: $(VENV)/.installed  ## read files that other libraries write (installs them; large)
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	.venv-peer/bin/python -m pip install --quiet torch==2.13.0 -r tests/peers/shared.txt
	-.venv-peer/bin/python -m pip uninstall --quiet --yes torchvision  # only built for other torches
	rm -rf .venv-peer/libraries .venv-peer/files
	set -e; while read -r package generator; do \
		.venv-peer/bin/python -m pip install --quiet --no-deps \
			--target .venv-peer/libraries/$$package $$package; \
		echo "$$package"; TQDM_DISABLE=1 PYTHONPATH=.venv-peer/libraries/$$package \
			.venv-peer/bin/python tests/peers/generators/$$generator.py .venv-peer/files/$$package; \
	done < tests/peers/libraries.txt
	SAEAUDIT_PEERS=.venv-peer/files $(BIN)/python -m tests.peers.matrix --write
	SAEAUDIT_PEERS=.venv-peer/files $(BIN)/python -m pytest tests/peers/check_matrix.py
	SAEAUDIT_PEERS=.venv-peer/files $(BIN)/python -m pytest -rP tests/peers/check_registry.py
	.venv-peer/bin/python -m pytest tests/peers/test_semantic.py tests/peers/test_collect.py \
		tests/peers/check_lens.py
