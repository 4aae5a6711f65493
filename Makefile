# Needs Python 3.10 to 3.13 and nothing else. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test fuzz lint dist docs docs-links clean
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	# timm, which nnU-Net needs, imports torchvision; the registry's torchvision is built for CUDA and does not
	# import beside a CPU build of torch. 0.15.2 is the last release that imports without its compiled part.
	$(BIN)/python -c "import torchvision" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.15.2
	touch $@

demo: install      ## phantom data, training, calibration, prediction, report: under 6 minutes
	$(BIN)/nnunet_ext demo -o demo

# Two workers with a thread each: tiny networks gain nothing from more. Each file goes to one of them, because tests of a
# file share trained models. (pytest-xdist 3.8 silently drops the groups of loadgroup under pytest 9.2.)
test: install      ## the whole test-suite, CPU only
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Linux only, for which atheris has wheels.
FUZZ_SECONDS ?= 60
fuzz: .venv/fuzz-installed  ## random bytes for the parsers of files from elsewhere, a minute for each
	$(BIN)/python tests/fuzz/fuzz.py -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=4096

.venv/fuzz-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "atheris>=2.3"
	touch $@

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && \
		$(BIN)/deptry nnunet_ext

dist: install      ## wheel and sdist, as they are released
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# -E: Sphinx does not see that the code has changed that pages are generated from.
docs: .venv/docs-installed  ## the site, in docs/_build/html; a warning or a broken link within it is an error
	$(BIN)/python -m sphinx -b html -q -E -W --keep-going docs docs/_build/html

docs-links: .venv/docs-installed  ## whether links to other sites still lead somewhere; needs the network
	$(BIN)/python -m sphinx -b linkcheck -q -W --keep-going docs docs/_build/linkcheck

# The extra's packages by themselves: `pip install -e ".[docs]"` would replace the torchvision that was chosen above.
DOCS_EXTRA = from importlib.metadata import requires; \
	print(*(line.partition(";")[0] for line in requires("nnunet-ext") if "docs" in line.partition(";")[2]))

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python -c '$(DOCS_EXTRA)')
	touch $@

clean:
	rm -rf .venv demo dist docs/_build
