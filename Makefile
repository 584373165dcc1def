# On a fresh machine `make demo` and `make test` are enough: each first installs what it uses into .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Processes that make starts end with it, even if it is killed: local/stack/guardian.py watches the topmost make.
ifeq ($(MAKELEVEL),0)
export MAKE_PID := $(shell echo $$PPID)
endif

.PHONY: help setup demo soak test test-pythons lint metadata lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY)  ## install all dependencies into .venv, or repair it
	@:

demo: $(READY)  ## run the system on local emulators, then check every row (DEMO_SECONDS=60 WRITE_METHOD=upsert)
	@$(BIN)/python -m local demo

soak: $(READY)  ## the same with faulty sensors; kill BigQuery and the pipeline, then account for every message (SOAK_SECONDS=300)
	@$(BIN)/python -m local soak

# Two files at a time, in order: the tests of a file share what they start, and no two end-to-end tests run at once.
test: $(READY)  ## unit tests, graph tests, and end-to-end tests on the emulators
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(TESTS)

PYTHONS ?= 3.11 3.12 3.13 3.14
test-pythons:  ## tests of the shipped packages, on every supported Python
	@for version in $(PYTHONS); do $(MAKE) --no-print-directory test PYTHON=python$$version VENV=build/python$$version \
	    TESTS="tests/pipeline tests/publisher tests/contract tests/deploy/template" || exit 1; done

WHEEL := build/wheel
.PHONY: wheel-test
wheel-test: $(READY)  ## build a wheel and import each of its modules, in an environment that holds requirements.txt alone
	@echo "Building a wheel, and an environment for it (about 15 seconds)"
	@rm -rf $(WHEEL) build/lib && mkdir -p $(WHEEL)
	@$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(WHEEL) .
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(WHEEL)/environment
	@$(BIN)/uv pip sync --quiet --python $(WHEEL)/environment --require-hashes --build-constraints=requirements-dev.txt requirements.txt
	@$(BIN)/uv pip install --quiet --python $(WHEEL)/environment --no-deps --no-build-isolation $(WHEEL)/*.whl
	@cd $(WHEEL) && environment/bin/python $(CURDIR)/tests/machines/wheel.py pipeline $(CURDIR)/pipeline

DEBIAN ?= bookworm
.PHONY: debian-test
debian-test:  ## make demo and make test on a minimal Debian in build/ (DEBIAN=bookworm, trixie or forky; needs root and debootstrap)
	@tests/machines/debian.sh $(DEBIAN) build/debian/$(DEBIAN)

BEAM_VERSION := $(shell sed -n 's/^apache-beam==\([0-9.]*\).*/\1/p' requirements-dev.txt)
PRISM ?= $(or $(shell command -v prism),build/prism-$(BEAM_VERSION)/prism)
ENGINE_TESTS ?= tests/engine $(addprefix tests/pipeline/,test_graph.py test_lateness.py test_silences.py \
	aggregate/test_statistics.py windows/test_hopping.py windows/test_long_intervals.py \
	sinks/test_streaming_inserts.py sinks/test_storage_write.py)
# The seed of the random streams. A failing test prints the seed that repeats it.
ENGINE_SEED ?= $(shell date +%s)
.PHONY: engines
engines: $(READY) $(PRISM)  ## tests of the graph on Prism, Beam's portable runner, built once with Go (PRISM=path: use an installed one)
	@ENGINE_SEED=$(ENGINE_SEED) $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --prism=$(PRISM) $(ENGINE_TESTS)

build/prism-$(BEAM_VERSION)/prism:
	@command -v go > /dev/null || { echo "make engines builds Prism with Go: install Go from https://go.dev/dl, or name a Prism with PRISM=path"; exit 1; }
	@echo "Building Prism $(BEAM_VERSION) (about two minutes, once)"
	@GOBIN=$(abspath $(@D)) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM_VERSION)

.PHONY: image-test
image-test: $(READY)  ## build the images from their Dockerfiles and run each of their roles (needs root and buildah)
	@$(BIN)/python -m tests.images

.PHONY: bench
bench: $(READY)  ## CPU per reading on Beam's worker, compared with other designs, in about 5 minutes (BENCH_QUICK=1: one)
	@$(BIN)/python -m benchmarks

.PHONY: bench-growth bench-live bench-peers bench-publisher bench-startup bench-writing
bench-growth: $(READY)  ## CPU, memory and state against readings, devices and sensors, in about 5 minutes
	@$(BIN)/python -m benchmarks.growth

bench-live: $(READY)  ## publisher to rows on the emulators: sustained readings/s, and the delay of rows
	@$(BIN)/python -m benchmarks.end_to_end

PEERS := build/peers
bench-peers: $(PEERS)/.ready  ## the same rows from Bytewax, Pathway and Quix Streams (2 GB of packages), in about 7 minutes
	@$(PEERS)/bin/python -m benchmarks.peers

$(PEERS)/.ready: benchmarks/peers/requirements.txt $(READY)
	@echo "Setting up $(PEERS) (once)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	@$(BIN)/uv pip sync --python $(PEERS) --require-hashes --build-constraints=requirements-dev.txt benchmarks/peers/requirements.txt
	@$(BIN)/uv pip check --quiet --python $(PEERS)
	@touch $@

bench-publisher: $(READY)  ## readings/s published, compared with other clients, and memory when Pub/Sub is slow
	@$(BIN)/python -m benchmarks.publisher

bench-startup: $(READY)  ## seconds from launch to the job request, and what is imported
	@$(BIN)/python -m benchmarks.startup

bench-writing: $(READY)  ## CPU per row and rows/s of the three write methods against the same stand-in, in about 10 minutes
	@$(BIN)/python -m benchmarks.writing

.PHONY: acceptance
acceptance: $(READY)  ## run everything once in a real project, check it, delete it (PROJECT_ID=... REGION=... DRY_RUN=1)
	@$(BIN)/python -m deploy.acceptance --project=$(PROJECT_ID) --region=$(REGION) $(if $(DRY_RUN),--dry-run)

.PHONY: mutants
mutants: $(READY)  ## find changes that a module's tests do not notice (MODULE=pipeline/decode/decoder.py or SINCE=main, SAMPLE=50)
	@$(BIN)/python -m tests.mutants $(MODULE) $(if $(SINCE),--since=$(SINCE)) $(if $(SAMPLE),--sample=$(SAMPLE))

lint: $(READY)  ## ruff (style, formatting), import-linter (who may import whom) and mypy (types)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache
	@echo "mypy (up to a minute without a cache)"
	@$(BIN)/mypy

metadata: $(READY)  ## write metadata.json, deploy/terraform/parameters.tf and docs/parameters.md from pipeline/launch/parameters.py; docs/messages.md from docs/messages.jsonl
	@$(BIN)/python -m deploy.template.metadata
	@$(BIN)/python -m deploy.template.terraform
	@$(BIN)/python -m deploy.template.reference
	@$(BIN)/python -m deploy.template.recipes

PULUMI_GCP := 10.2.0
.PHONY: terraform-schema
terraform-schema: $(READY)  ## write the provider schema for the tests of deploy/terraform/, from the package pulumi-gcp
	@$(BIN)/python -m pip download --no-deps --dest=build pulumi-gcp==$(PULUMI_GCP)
	@$(BIN)/python -m tests.deploy.terraform.schema build/pulumi_gcp-$(PULUMI_GCP)-py3-none-any.whl

.PHONY: picture
picture: $(READY)  ## redraw the README's picture of the live page
	@PICTURE=docs/images/dashboard.png $(BIN)/python -m pytest --quiet tests/dashboard/test_picture.py

.PHONY: monitoring
monitoring: $(READY)  ## write the alerts, the dashboard and the log-based metric from deploy/monitoring/*.py
	@$(BIN)/python -m deploy.monitoring

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links
lock: $(READY)  ## recompute the hash-pinned locks from the dependencies and groups of pyproject.toml
	$(COMPILE) pyproject.toml --group dev -o requirements-dev.txt
	$(COMPILE) pyproject.toml --group image -c requirements-dev.txt -o requirements.txt
	$(COMPILE) --group publisher -c requirements-dev.txt -o publisher/requirements.txt
	$(COMPILE) --group dashboard -c requirements-dev.txt -o dashboard/requirements.txt
	$(COMPILE) pyproject.toml --group peers -o benchmarks/peers/requirements.txt

.PHONY: sbom audit
sbom: $(READY)  ## write build/sbom/*.cdx.json: the packages of each image with their licences (CycloneDX)
	@for image in pipeline:requirements.txt publisher:publisher/requirements.txt dashboard:dashboard/requirements.txt; do \
	  environment=build/sbom/$${image%%:*}; echo "$$environment.cdx.json"; \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python $$environment && \
	  $(BIN)/uv pip sync --quiet --python $$environment --require-hashes \
	    --build-constraints=requirements-dev.txt $${image#*:} && \
	  $(BIN)/cyclonedx-py environment $$environment --output-reproducible --output-file $$environment.cdx.json || exit 1; \
	done

audit: $(READY)  ## look up known vulnerabilities of the images' packages (asks PyPI)
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.txt -r publisher/requirements.txt \
	  -r dashboard/requirements.txt

clean:  ## remove the environment and everything generated
	rm -rf .venv build demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# An incomplete or broken environment is recreated.
ifneq ($(shell $(BIN)/uv pip check --quiet --python $(BIN)/python 2>/dev/null && echo sound),sound)
.PHONY: $(READY)
endif

# Every package is in the lock with its hash, so nothing is resolved and nothing else is fetched. uv and setuptools are
# installed first: uv installs the rest, and setuptools builds the one package that has no wheel. uv does not read pip's
# configuration; where an index is configured for pip alone, pip installs the rest.
INSTALL := install --quiet --no-deps --require-hashes
SUPPORTED := 3.11 3.12 3.13 3.14
# The system's certificates, as pip uses them, because a company's proxy has its own.
export UV_SYSTEM_CERTS ?= true
failed = { echo "Setting up $(VENV) failed: $(1). The reason is above. The next try continues with what was downloaded." >&2; exit 1; }

$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(SUPPORTED)".split())' 2> /dev/null || { \
	  echo "One of Python $(SUPPORTED) is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1 || true)."; \
	  for version in $(SUPPORTED); do python$$version -c pass 2> /dev/null && found="$$found python$$version"; done; \
	  if [ "$$found" ]; then echo "This machine has$$found. Name one: make $(MAKECMDGOALS) PYTHON=$${found##* }"; \
	  else echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13), \
	and name it: make $(MAKECMDGOALS) PYTHON=python3.13"; fi; exit 1; } >&2
	@echo "Setting up $(VENV) with $$($(PYTHON) -V) (about 20 seconds, once)"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "Python's venv is missing. Debian, Ubuntu: apt-get install python3-venv"; $(call failed,no environment created); }
	@sed -nE '/^(uv|setuptools)==/,/[^\]$$/p' requirements-dev.txt > $(VENV)/first.txt
	@$(BIN)/python -m pip $(INSTALL) --disable-pip-version-check --only-binary=:all: -r $(VENV)/first.txt || $(call failed,uv and setuptools not installed)
	@[ -t 2 ] || quiet=--quiet; $(BIN)/uv pip sync $$quiet --python $(BIN)/python --require-hashes --no-build-isolation requirements-dev.txt || \
	  { echo "Trying once more with pip (about two minutes)"; \
	    $(BIN)/python -m pip $(INSTALL) --disable-pip-version-check --no-build-isolation --progress-bar=on -r requirements-dev.txt; } || $(call failed,requirements-dev.txt not installed)
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable . || $(call failed,the package of pyproject.toml not installed)
	@$(BIN)/uv pip check --python $(BIN)/python --quiet || $(call failed,installed packages do not fit together)
	@touch $@
