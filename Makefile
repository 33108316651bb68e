# Everything is a subcommand of `python -m lab`; this file only makes the environment and saves typing.
PYTHON ?= python3
PROFILE ?= quick
DEVICE ?= cpu
CHAPTER ?= 04
lab = .venv/bin/python -m lab

.DEFAULT_GOAL := help
.PHONY: help book test chapter refresh serve lab record recheck lock sbom clean

help: ## what you can type
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11: install a newer one and run make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "error: this Python cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.txt -c constraints.txt
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

book: .venv/installed ## execute what changed and build the pages
	@$(lab) book

test: .venv/installed ## all tests, the notebooks' among them
	@$(lab) test

chapter: .venv/installed ## make chapter CHAPTER=04 PROFILE=short DEVICE=cuda
	@$(lab) chapter $(CHAPTER) --profile $(PROFILE) --device $(DEVICE)

refresh: .venv/installed ## re-execute the chapters in place, to commit new outputs
	@$(lab) refresh

record: .venv/installed ## compute and record the runs of a profile: make record PROFILE=short DEVICE=cuda
	@$(lab) record --profile $(PROFILE) --device $(DEVICE)

recheck: .venv/installed ## evaluate the shipped models and compare with their records
	@$(lab) recheck

serve: .venv/installed ## the built book on http://127.0.0.1:8000
	@$(lab) serve

lab: .venv/installed ## JupyterLab on the chapters
	@$(lab) lab

lock: .venv/installed ## write down every version that follows from requirements.txt: constraints.txt
	.venv/bin/pip-compile --quiet --strip-extras --allow-unsafe --no-header --no-annotate --no-emit-options \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file constraints.txt requirements.txt
	sed -i -e 's/+cpu$$//' -e '/^$$/d' -e '/^#/d' constraints.txt # builds of PyTorch share their version

sbom: .venv/installed ## a bill of materials of what is installed, with licences (CycloneDX): _build/sbom.json
	@mkdir -p _build
	.venv/bin/cyclonedx-py environment .venv/bin/python --output-reproducible --output-file _build/sbom.json

clean: ## delete what can be built again
	@test ! -x .venv/bin/python || $(lab) clean
