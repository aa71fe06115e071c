# Every target can be run again; work that is up to date is skipped.
PYTHON ?= python3
# `LLM=llm` takes vLLM's GPU build.
LLM    ?= llm-cpu
# Where pip finds torch, if not where it finds the rest: an index of CPU builds, say.
TORCH_INDEX_URL ?=
BIN    := .venv/bin
# Modules are compiled when they are imported first: most of the environment never is.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile --constraint constraints.txt
# uv installs the same versions in a third of the time, where it is present.
UV     := $(shell command -v uv 2>/dev/null)
ADD    := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt,$(PIP))
WORK   := build/demo

# Event files and papers in ../shared/data are added to the demo's simulated ones if they exist, and the report's table
# has the rates' gain on real files.
EVENTS := $(wildcard ../shared/data/real-events)
PAPERS := $(wildcard ../shared/data/real-literature.jsonl)
FILES  := $(wildcard $(addprefix ../shared/data/,$(addprefix real-events/,chandra_test.fits ngc300nicer_bary.evt \
  J0218_nicer_2070030405_cleanfilt_cut_bary.evt) $(addprefix real-fields/,0201901401_mos1_clean_evts.fits \
  nu30101031002_cut.evt acisf00754_evt2_cut60.fits.gz)))
ifneq ($(EVENTS),)
REAL += --set 'steps.ingest.inputs=["$${workdir}/archive/events","$(EVENTS)"]'
endif
ifneq ($(FILES),)
REAL += --set 'steps.evaluate.real_files=[$(foreach file,$(FILES),"$(file)",)]'
endif
ifneq ($(PAPERS),)
REAL += --set 'steps.literature.inputs=["$${workdir}/archive/literature.jsonl","$(PAPERS)"]'
endif

# Ray and vLLM start many processes, which import the same modules: what Python compiles of them it must be allowed to
# keep, or each process takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo install test fuzz lint types format docs wheel bench soak reference clean
.DEFAULT_GOAL := demo

demo: .venv/installed
	$(BIN)/lexray run configs/demo.yaml --set workdir=$(WORK) $(REAL)
	$(BIN)/python examples/tour.py $(WORK)

install: .venv/installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lexray needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv

# torch first and alone: a resolver that takes it together with the rest may bring gigabytes of CUDA packages to a
# machine without a GPU. Lexray's text models need none of the three removed after; as CUDA builds beside a CPU torch,
# which vLLM's CPU package drags in, they keep vLLM from being imported. A new pip resolves in a third of the time that
# Python's own takes, and knows dependency groups.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing Lexray into .venv (some minutes)"
	$(PIP) pip
	$(PIP) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	$(ADD) --editable '.[$(LLM)]'
	$(if $(filter llm-cpu,$(LLM)),$(BIN)/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec)
	@touch $@

# What tests, lint, docs and fuzz need beside it: the groups of these names in pyproject.toml.
.venv/installed-%: .venv/installed
	@echo "installing what \`make $*\` needs"
	$(ADD) --group $*
	@touch $@

# A browser for the page, kubectl for the manifests and fpack for packed files, where Debian's packages can be
# installed; tests that need one and find none say so.
.PHONY: programs
programs:
	@for program in chromium:chromium kubectl:kubernetes-client wrk:wrk fpack:libcfitsio-bin; do \
	  command -v $${program%%:*} >/dev/null || missing="$$missing $${program##*:}"; done; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

# Two processes, since one waits half of its time for others to start; tests/conftest.py says which runs what.
# `make test PYTEST=` runs one.
PYTEST ?= -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/installed-test programs
	$(BIN)/python -m pytest $(PYTEST)

# Property tests with examples that no run before tried. pytest's last lines name a patch in .hypothesis/patches for what
# fails: `git apply` writes it into the test as an explicit example, which `make test` tries from then on.
SEARCH = $(BIN)/python -m pytest -m 'hypothesis and not cluster' --hypothesis-profile search

# Inputs that break the reader are left in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz: .venv/installed-test .venv/installed-fuzz programs
	PYTHONPATH=tests $(BIN)/python tests/events/fuzz_reader.py $(FUZZ_SECONDS)
	$(SEARCH)

lint: types
	PYTHONPATH=build/typed $(BIN)/lint-imports --no-logo
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-lint build/typed
	$(BIN)/python -m mypy

# The three folders as the one package that they are installed as: what mypy, import-linter and pdoc look at.
.PHONY: build/typed
build/typed:
	@rm -rf build/typed  # links to what has moved would shadow it
	@mkdir -p build/typed/lexray
	@ln -sfn $(CURDIR)/platform/lexray/* $(CURDIR)/jobs $(CURDIR)/serve build/typed/lexray/

# An API reference from the docstrings: build/docs/index.html. A package that lists its public names hides its modules
# from pdoc, so each is named; the others' modules pdoc finds itself.
docs: .venv/installed-docs build/typed
	@rm -rf build/docs
	PYTHONPATH=build/typed $(BIN)/pdoc --docformat numpy --math --output-directory build/docs \
	  $$(cd build/typed && find -L lexray -name '*.py' ! -name '__main__.py' | sed 's|/__init__||; s|\.py$$||; s|/|.|g' \
	  | grep -vE '^lexray\.((cli|jobs|serve|events\.missions)\.|models\.(alignment|autodecoders)$$)' | sort)

# The wheel, built and installed into an empty environment, and its commands: a package that pyproject.toml forgets
# breaks the wheel only. Not a part of `make test`: the install takes minutes.
wheel: .venv/bin/python
	.ci/wheel $(PYTHON)

format: .venv/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# That of the install is left out: it downloads and installs everything again.
bench: .venv/installed-test programs demo
	@for script in $(filter-out benchmarks/install.py,$(wildcard benchmarks/*.py)); do echo "$$script"; $(BIN)/python $$script || exit 1; done

# Failures and tests at full size, for minutes: what `make test` injects once each on a tiny archive, or does at a tenth.
soak: .venv/installed-test .venv/installed-fuzz programs demo
	$(BIN)/python benchmarks/soak/ingest.py
	$(BIN)/python -m pytest -m scale --full-size
	$(SEARCH)

# The reference autodecoder that comes with Lexray, trained anew; the library takes it from its package's folder.
reference: .venv/installed
	$(BIN)/lexray train reference --config configs/reference.yaml
	cp build/reference/* platform/lexray/models/autodecoders/reference/

clean:
	rm -rf build
