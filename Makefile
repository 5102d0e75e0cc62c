# Every target first makes what it needs: a virtual environment in .venv, then a3cjax and its
# dependencies in it, at the versions of constraints.txt. A file in .venv marks what is installed;
# a change of pyproject.toml or constraints.txt installs again.
#
# The environment variable PYTHON names the Python to build .venv with:
#     PYTHON=python3.12 make train env=Pong
PYTHON ?= python3

VENV := .venv
RUN := $(VENV)/bin/python
# pip stays silent but for errors.
PIP_INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt
FOR_TRAINING := $(VENV)/.installed-for-training
FOR_DEVELOPMENT := $(VENV)/.installed-for-development
CODE := $(wildcard a3cjax examples experiments tests benchmarks docs/hooks)

# `make train a=1 b.c=2`: each variable given on make's command line becomes one argument,
# 'a=1' 'b.c=2', with its value as it was typed. Make lists them in MAKEOVERRIDES with a backslash
# before blanks and backslashes; without those, the list falls into words that start with the names.
# No variable of this file has the lower-case name of a setting, so that none can be overwritten.
OVERRIDE_WORDS = $(subst \ ,,$(subst \\,,$(MAKEOVERRIDES)))
OVERRIDE_NAMES = $(foreach WORD,$(OVERRIDE_WORDS),$(firstword $(subst =, ,$(WORD))))
OVERRIDES = $(foreach NAME,$(OVERRIDE_NAMES),'$(NAME)=$(subst ','\'',$(value $(NAME)))')

.PHONY: help train atari5 control test test-slow mutants docs lint format

help:
	@echo "make train env=Pong     train an agent; every name=value is passed to a3cjax train,"
	@echo "                        for example total_frames=400000 seed=3"
	@echo "make atari5             train the five games of the paper's figure 1 and report on them;"
	@echo "                        for example total_frames=1000000 seed=1,2,3"
	@echo "make control            train the problems of the table in docs/results.md, five seeds each;"
	@echo "                        for example env=CartPole,Acrobot seed=1,2 jobs=2"
	@echo "make test               run the tests"
	@echo "make test-slow          run the long tests: learning, kills"
	@echo "make mutants            put small faults into a copy, one at a time, and run their tests"
	@echo "make docs               build the documentation: site/index.html"
	@echo "make lint               check style, format and types"
	@echo "make format             rewrite the code in the common format"

train: $(FOR_TRAINING)
	$(RUN) -m a3cjax train $(OVERRIDES)

# A setting given on make's command line follows the defaults, and the last one counts.
atari5: $(FOR_TRAINING)
	$(RUN) -m a3cjax sweep sweep_dir=runs/atari5 env=Pong,Breakout,SpaceInvaders,BeamRider,Qbert \
		seed=1 total_frames=10000000 $(OVERRIDES)

# Goes on where it was stopped. A part of it: make control env=CartPole,Acrobot seed=1,2 jobs=2
control: $(FOR_TRAINING)
	$(RUN) benchmarks/control.py $(OVERRIDES)

test: $(FOR_DEVELOPMENT)
	$(RUN) -m pytest --numprocesses auto --dist worksteal

test-slow: $(FOR_DEVELOPMENT)
	$(RUN) -m pytest -m slow --timeout 3600

mutants: $(FOR_DEVELOPMENT)
	$(RUN) -m tests.mutants

# mkdocs.yml makes errors of warnings. The variable keeps the theme from advertising its successor.
docs: $(FOR_DEVELOPMENT)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# Without PYRIGHT_PYTHON_IGNORE_WARNINGS, pyright goes online to ask for a newer version.
lint: $(FOR_DEVELOPMENT)
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -m pyright

format: $(FOR_DEVELOPMENT)
	$(RUN) -m ruff check --fix-only $(CODE)
	$(RUN) -m ruff format $(CODE)

# An environment that is already there is kept; one whose creation was interrupted is completed.
define CREATE_VENV
@$(RUN) -m pip --version >/dev/null 2>&1 || { \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "a3cjax needs Python 3.11 or newer as $(PYTHON); name another: PYTHON=... make ..."; exit 1; }; \
	echo "Creating the virtual environment in $(VENV) ..."; \
	$(PYTHON) -m venv $(VENV); }
endef

$(FOR_TRAINING): pyproject.toml constraints.txt
	$(CREATE_VENV)
	@echo "Installing a3cjax and its dependencies (1.6 GB, 1-3 minutes) ..."
	@$(PIP_INSTALL) -e '.[train]'
	@touch $@

$(FOR_DEVELOPMENT): pyproject.toml constraints.txt
	$(CREATE_VENV)
	@echo "Installing a3cjax, its dependencies and the development tools (2 GB, 1-3 minutes) ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(FOR_TRAINING)
