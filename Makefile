# `make` lists what people use. Everything lives in .venv; nothing is installed elsewhere.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON := $(BIN)/python
CODEGEN := .venv/codegen
INSTALLED := .venv/.installed
CODEGEN_INSTALLED := $(CODEGEN)/.installed
PAGE_INSTALLED := .venv/.page-installed
POLYGLOT := .venv/polyglot
POLYGLOT_INSTALLED := $(POLYGLOT)/.installed
MANIFESTS := .venv/manifests
MANIFESTS_INSTALLED := $(MANIFESTS)/.installed
AUDIT := .venv/audit
AUDIT_INSTALLED := $(AUDIT)/.installed
LOWEST := .venv/lowest
NEWEST := .venv/newest
UV := .venv/uv/bin/uv
COMPILE := $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header
SYNC := $(UV) pip sync --quiet --require-hashes
# What is published, installed from this tree.
DISTRIBUTIONS := client server gateway world
PROJECTS := $(DISTRIBUTIONS:=/pyproject.toml)
TREE := $(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(DISTRIBUTIONS))
# Its hashes are checked: uv does so for constraints that have some.
ADD := $(UV) pip install --quiet --constraints requirements-tools.lock
BUF := $(BIN)/buf

# Tried in this order; the first that is new enough makes the environment. The system's own was
# compiled for speed, and pyenv's are not unless asked to: the tests take a sixth longer with them.
PYTHONS ?= /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.14

# The versions that the client's classifiers name.
CLAIMED_PYTHONS = $(shell sed -n 's/.* :: Python :: \(3\.[0-9]*\)",/\1/p' client/pyproject.toml)

PACKAGES := client/jobledger server/jobledger_server gateway/jobledger_gateway world/jobledger_world
SCRIPTS := release/same_version.py $(wildcard scripts/*.py) scripts/mutants scripts/reference $(wildcard examples/*.py examples/clients/python/*.py examples/pictures/*.py examples/chat/*.py) benchmarks
VERSION = $(shell cut -d. -f1,2 release/VERSION)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv compiles nothing, and some machines let Python write no bytecode. The tests start hundreds of
# servers, and each would spend most of a second of CPU on compiling: keep the bytecode in .venv.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache
unexport PYTHONDONTWRITEBYTECODE
# uv reads none of pip's settings; a mirror of the package index is the one that matters.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: help
help: ## list the targets that people use; `make help-all` lists all
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: help-all
help-all: ### list all targets
	@awk -F ':.* ###? ' '/^[a-z-]+:.* ###? / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- use -----------------------------------------------------------------------------------------

.PHONY: setup
setup: $(INSTALLED) ## install the service, the client and all tools into .venv

.PHONY: demo
demo: $(INSTALLED) ## see it work: a server, a worker and live bars; ARGS="--output DIR" keeps the files
	@$(PYTHON) examples/demo.py $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## measure it on this machine; ARGS="run unary" for one scenario, ARGS=--help for all
	@$(PYTHON) -m benchmarks $(ARGS)

.PHONY: dist
dist: $(INSTALLED) ### build the wheels and the sdists into dist/
	@for each in $(DISTRIBUTIONS); do (cd $$each && ../$(PYTHON) -m hatchling build -t sdist -t wheel -d ../dist); done

# --- develop -------------------------------------------------------------------------------------

# Many tests wait: five processes on two cores. Each collects all tests, and has templates of
# databases of its own.
IN_PARALLEL := -n 5 --dist worksteal
FAST := -k "not postgresql" tests/unit tests/e2e/rpc
# What another version can break: pure code, and each part of the whole on both databases.
VERSIONS := tests/unit $(addprefix tests/e2e/,rpc/test_jobs.py rpc/test_claims.py \
	rpc/test_work.py rpc/test_watch_jobs.py client/test_real_server.py \
	worker/test_real_server.py cli/test_output.py)
# A seed gives the same run on each of them.
SAME_RUN := -m tests.simulation --seed 1 --load 2 --no-save
# What a new version of a client's dependency can break.
CLIENT := tests/unit/client $(addprefix tests/e2e/,client worker/test_real_server.py \
	cli/test_output.py)

.PHONY: test
test: $(INSTALLED) ## run the tests in five processes, without those of `make check`; ARGS="-k watch" runs some of them
	@$(PYTHON) -m pytest $(IN_PARALLEL) $(patsubst %,--ignore=tests/%,e2e/docs/pages page polyglot) $(ARGS)

.PHONY: test-fast
test-fast: $(INSTALLED) ## run the tests of pure code, and of the whole server on SQLite, in a minute
	@$(PYTHON) -m pytest $(IN_PARALLEL) $(FAST) $(ARGS)

.PHONY: test-client
test-client: $(INSTALLED) ### run the tests of the client and the worker library, on SQLite, as CI does on macOS
	@$(PYTHON) -m pytest $(IN_PARALLEL) -k "not postgresql" tests/unit/client tests/e2e/client tests/e2e/worker $(ARGS)

.PHONY: test-robustness
test-robustness: $(INSTALLED) ### break everything under load for two minutes, and check what callers saw; ARGS="--duration 600 --seed 7"
	@$(PYTHON) -m tests.checker $(ARGS)

.PHONY: simulate
simulate: $(INSTALLED) ## run servers and clients in simulated time, with a seed for all that breaks; ARGS="--seeds 1000", ARGS="--seed 27 --shrink"
	@$(PYTHON) -m tests.simulation $(ARGS)

# Attacks are judged by how others are served, and histories by how much has happened: nothing else
# may run at the same time.
ALONE := tests/robustness/abuse tests/robustness/test_rolling_upgrade.py
HISTORY := tests/robustness/test_history.py
# Servers that die and freeze, and lose their database.
FAULTS := $(addprefix tests/robustness/test_,commits_in_doubt.py outages.py processes.py standby.py)

# Other seeds than those of the commit before, and the same ones if a commit is run again.
FIRST_SEED = $$((16\#$$(git rev-parse --short=8 HEAD)))

.PHONY: test-faults
test-faults: $(INSTALLED) ### kill and freeze servers and their databases, and check what callers saw
	@$(PYTHON) -m pytest -m slow -n 4 --dist worksteal $(FAULTS) $(ARGS)
	@$(PYTHON) -m pytest -m slow $(HISTORY) $(ARGS)

.PHONY: test-load
test-load: $(INSTALLED) ### check what callers saw while two servers on PostgreSQL are killed, for a minute
	@$(PYTHON) -m tests.checker --servers 2 --only "kill -9" --duration 60 --seed $(FIRST_SEED) $(ARGS)

.PHONY: test-seeds
test-seeds: $(INSTALLED) ### run the simulated seeds that this commit is tried with
	@$(PYTHON) -m tests.simulation --seeds 150 --store memory --load 5 --first $(FIRST_SEED) $(ARGS)
	@$(PYTHON) -m tests.simulation --seeds 30 --store sqlite --load 5 --first $(FIRST_SEED) $(ARGS)

.PHONY: test-many-seeds
test-many-seeds: $(INSTALLED) ### run thousands of simulated seeds, and have them find every planted bug, for half an hour
	@$(PYTHON) -m tests.simulation --seeds 5000 --minutes 20 --first $(FIRST_SEED) --shrink $(ARGS)
	@$(PYTHON) -m tests.simulation --planted --seeds 1000 $(ARGS)

.PHONY: test-promises
test-promises: $(INSTALLED) ### break each promise of the docs, and see its test fail, for half an hour; ARGS="24 50" for some
	@$(PYTHON) -m tests.promises $(ARGS)

.PHONY: test-slow
test-slow: $(INSTALLED) ### run the tests that take long: examples, installs, processes, watchers
	@$(PYTHON) -m pytest -m "slow and not polyglot" -n 4 --dist worksteal $(patsubst %,--ignore=%,$(ALONE) $(FAULTS) $(HISTORY)) $(ARGS)

.PHONY: test-attacks
test-attacks: $(INSTALLED) ### run the long attacks, and the replacement of servers, one at a time
	@$(PYTHON) -m pytest -m slow $(ALONE) $(ARGS)

.PHONY: test-night
test-night: $(INSTALLED) ### compare the databases under long random histories, for a quarter of an hour
	@$(PYTHON) -m pytest -m night -n 2 --dist worksteal -o faulthandler_timeout=900 tests/integration/store/histories $(ARGS)

.PHONY: test-abuse
test-abuse: $(INSTALLED) ### attack a server, and fuzz it, while a good client calls it; ARGS="-k reset" for some attacks
	@$(PYTHON) -m pytest -m "not polyglot" tests/robustness/abuse tests/robustness/test_fuzz.py $(ARGS)

.PHONY: test-page
test-page: $(INSTALLED) $(PAGE_INSTALLED) ### use the page in Debian's chromium, as people do
	@$(PYTHON) -m pytest -m page tests/page $(ARGS)

.PHONY: test-polyglot
test-polyglot: $(INSTALLED) $(POLYGLOT_INSTALLED) ### try the clients in all languages that are here; ARGS="-k [go" for one
	@$(PYTHON) -m pytest -m "polyglot and not slow" -n 4 tests/polyglot tests/e2e/worker/test_exec.py tests/packaging/test_types.py $(ARGS)

.PHONY: test-exposed
test-exposed: $(INSTALLED) $(POLYGLOT_INSTALLED) ### attack a server through Envoy, one flood at a time
	@$(PYTHON) -m pytest -m "polyglot and slow" tests/polyglot $(ARGS)

.PHONY: test-pythons
test-pythons: $(INSTALLED) ### run pure code, and each part once, on the other Pythons that pyproject.toml names
	@expected="$$($(PYTHON) $(SAME_RUN))"; \
	for version in $(CLAIMED_PYTHONS); do \
		case "$$($(PYTHON) --version)" in *" $$version".*) continue ;; esac; \
		$(MAKE) --no-print-directory ".venv/python$$version/.installed"; \
		".venv/python$$version/bin/python" -m pytest $(IN_PARALLEL) $(VERSIONS) $(ARGS); \
		found="$$(".venv/python$$version/bin/python" $(SAME_RUN))"; \
		[[ "$$found" == "$$expected" ]] || { \
			echo "A seed is another run on Python $$version: $$found, not $$expected" >&2; \
			exit 1; \
		}; \
	done

.PHONY: test-newest-python
test-newest-python: ### run the tests of `make test-pythons` with the newest of them alone
	@$(MAKE) --no-print-directory test-pythons CLAIMED_PYTHONS=$(lastword $(CLAIMED_PYTHONS))

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed ### run the tests of `make test-pythons` with the lowest versions that are allowed
	@$(LOWEST)/bin/python -m pytest $(IN_PARALLEL) $(VERSIONS) $(ARGS)

.PHONY: test-newest
test-newest: $(NEWEST)/.installed ### run the client's tests with the newest versions that a client allows
	@$(NEWEST)/bin/python -m pytest $(IN_PARALLEL) $(CLIENT) $(ARGS)

.PHONY: test-protobufs
test-protobufs: .venv/protobuf5/.installed .venv/protobuf6/.installed ### run the client's unit tests with the lowest versions that it allows, on protobuf 5 and on 6
	@for major in 5 6; do .venv/protobuf$$major/bin/python -m pytest $(IN_PARALLEL) tests/unit/client $(ARGS); done

.PHONY: test-image
test-image: $(INSTALLED) ### build the Dockerfile with buildah and run the image
	@$(PYTHON) -m pytest -m image tests/packaging $(ARGS)

.PHONY: coverage
coverage: $(INSTALLED) ### run the tests and say which lines and branches of the product they leave out
	@rm -rf .coverage && mkdir .coverage
	@$(PYTHON) -m coverage run -m pytest $(IN_PARALLEL) $(ARGS)
	@$(PYTHON) -m coverage combine --quiet
	@$(PYTHON) -m coverage report

.PHONY: mutants
mutants: $(INSTALLED) ### break the product in small ways, and name what no test notices; ARGS="--sample 200 --seed 1"
	@$(PYTHON) -m scripts.mutants $(ARGS)

.PHONY: audit
audit: $(AUDIT_INSTALLED) ### ask PyPI's vulnerability service about what the image runs
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-image.lock || { \
		echo "Vulnerable packages are named above, or the service does not answer for them:" \
			"it is another one than the package index, and a mirror may lack it." >&2; \
		exit 1; \
	}

.PHONY: check
check: check-code check-protos check-drift docs-check ## check all that can be checked without running it

.PHONY: check-code
check-code: $(INSTALLED) ### format, lint, types and import rules, within seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES) $(SCRIPTS) tests
	$(BIN)/lint-imports

.PHONY: check-protos
check-protos: $(INSTALLED) ### lint the protos, and compare them with earlier ones
	$(BUF) lint
	$(BUF) format -d --exit-code
	for image in tests/packaging/compat/*.binpb; do $(BUF) breaking --against "$$image"; done

.PHONY: check-workflows
check-workflows: ### check .github/workflows with actionlint; needs Go
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

.PHONY: check-manifests
check-manifests: $(INSTALLED) $(MANIFESTS_INSTALLED) ### check deploy/ with Helm, Kustomize, kubeconform and promtool; needs Go, and Debian's prometheus
	@$(PYTHON) -m pytest -m manifests tests/packaging/deploy $(ARGS)

.PHONY: check-drift
check-drift: $(INSTALLED) $(CODEGEN_INSTALLED) ### generate again, and compare with what is committed
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(CODEGEN)/bin/python scripts/generate.py "$$fresh"; \
	diff -r -x __pycache__ generated "$$fresh" || { \
		echo "generated/ is not what protos/ generates. Run \`make generate\` and commit it." >&2; \
		exit 1; \
	}; \
	$(PYTHON) -m scripts.openapi "$$fresh/openapi.json"; \
	diff gateway/jobledger_gateway/openapi.json "$$fresh/openapi.json" || { \
		echo "openapi.json is not what the gateway serves. Run \`make generate\` and commit it." >&2; \
		exit 1; \
	}; \
	$(PYTHON) scripts/generate_sync_client.py "$$fresh/sync"; \
	diff -r -x __pycache__ client/jobledger/core/sync "$$fresh/sync" || { \
		echo "core/sync is not what core/aio generates. Run \`make generate\` and commit it." >&2; \
		exit 1; \
	}

.PHONY: fmt
fmt: $(INSTALLED) ## format code and protos, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BUF) format -w

.PHONY: generate
generate: $(INSTALLED) $(CODEGEN_INSTALLED) ## write generated/ from protos/, the blocking client from the asyncio one, openapi.json, the Helm chart's templates
	PATH="$(CURDIR)/$(BIN):$$PATH" $(CODEGEN)/bin/python scripts/generate.py
	$(PYTHON) scripts/generate_sync_client.py
	$(PYTHON) -m scripts.openapi
	$(PYTHON) -m scripts.chart

.PHONY: docs
docs: $(INSTALLED) ## write the pages that are made from the code, and build the site in .site/html
	$(PYTHON) scripts/draw_state_machine.py
	$(PYTHON) -m scripts.reference
	$(PYTHON) scripts/build_site.py

.PHONY: pictures
pictures: $(INSTALLED) $(PAGE_INSTALLED) ### draw the pictures of `jobledger watch` and `top` and of the page again
	$(PYTHON) scripts/draw_terminal.py
	$(PYTHON) scripts/draw_page.py

SPELLED := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs examples/*.md protos scripts client server gateway world

.PHONY: docs-check
docs-check: $(INSTALLED) ### check the docs: made pages, spelling, names, links, the site
	$(PYTHON) scripts/draw_state_machine.py --check
	$(PYTHON) -m scripts.reference --check
	$(BIN)/codespell $(SPELLED)
	$(PYTHON) scripts/build_site.py
	$(PYTHON) -m pytest -q tests/e2e/docs/pages

.PHONY: lock
# Not uv.lock, which holds the address of the package index of every file.
lock: $(UV) ### renew the lock files
	$(COMPILE) $(addprefix --group ,published dev docs bench) -o requirements.lock
	$(COMPILE) --group image -c requirements.lock -o requirements-image.lock
	$(COMPILE) $(addprefix --group ,page polyglot manifests audit uv codegen) \
		-c <(sed -nE 's/^((greenlet|typing-extensions)==[^ ]*).*/\1/p' requirements.lock) --no-annotate -o requirements-tools.lock
	cd benchmarks/peers && ../../$(UV) pip compile --quiet --upgrade --universal \
		--python-version 3.11 --no-annotate --no-header requirements.in -o requirements.lock

.PHONY: baseline
baseline: $(INSTALLED) ### at a release: keep its protos, so that no later change can break them
	$(BUF) build --exclude-source-info -o tests/packaging/compat/jobledger-v$(VERSION).binpb

.PHONY: clean
clean: ### remove builds and caches; .venv stays
	rm -rf dist .site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

# --- environments --------------------------------------------------------------------------------

$(PYTHON):
	@for python in $(PYTHONS); do \
		if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "$$python -m venv .venv" >&2; \
			exec $$python -m venv .venv; \
		fi; \
	done; \
	echo "Jobledger needs Python 3.11 or newer; none of $(PYTHONS) is." >&2; \
	exit 1

$(INSTALLED): requirements.lock pyproject.toml $(PROJECTS) release/VERSION | $(PYTHON) $(UV)
	$(SYNC) --python $(PYTHON) requirements.lock
	$(TREE) --python $(PYTHON)
	@touch $@

$(CODEGEN_INSTALLED): requirements-tools.lock | $(PYTHON) $(UV)
	$(PYTHON) -m venv --without-pip $(CODEGEN)
	$(ADD) --python $(CODEGEN)/bin/python --group codegen
	@touch $@

$(POLYGLOT_INSTALLED): requirements-tools.lock | $(PYTHON) $(UV)
	$(PYTHON) -m venv --without-pip $(POLYGLOT)
	$(ADD) --python $(POLYGLOT)/bin/python --group polyglot
	@touch $@

# Their releases are not in a package registry: they are compiled, in two minutes of CPU.
KUBERNETES_TOOLS := helm.sh/helm/v3/cmd/helm@v3.19.5 \
	sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 \
	github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0

$(MANIFESTS_INSTALLED): requirements-tools.lock | $(PYTHON) $(UV)
	$(PYTHON) -m venv --without-pip $(MANIFESTS)
	$(ADD) --python $(MANIFESTS)/bin/python --group manifests
	@for tool in $(KUBERNETES_TOOLS); do GOBIN=$(CURDIR)/$(MANIFESTS)/bin go install "$$tool"; done
	@touch $@

# Beside what the tests need anyway: they are run by the same pytest.
$(PAGE_INSTALLED): requirements-tools.lock $(INSTALLED) | $(UV)
	$(ADD) --python $(PYTHON) --group page
	@touch $@

$(AUDIT_INSTALLED): requirements-tools.lock | $(PYTHON) $(UV)
	$(PYTHON) -m venv --without-pip $(AUDIT)
	$(ADD) --python $(AUDIT)/bin/python --group audit
	@touch $@

# pyenv keeps its Pythons side by side, and puts shims on the path that may find only one of them.
.venv/python%/.installed: requirements.lock $(PROJECTS) | $(PYTHON) $(UV)
	bases=$$(python3 -c 'import pathlib, sys; print(pathlib.Path(sys.base_prefix).parent)'); \
	PATH="$$(printf '%s:' "$$bases"/*/bin)$$PATH:/opt/python$*/usr/bin" \
		$(UV) venv --quiet --clear --python $* .venv/python$*
	$(SYNC) --python .venv/python$*/bin/python requirements.lock
	$(TREE) --python .venv/python$*/bin/python
	@touch $@

# Not locked: it has to be what the projects say now.
$(LOWEST)/.installed: pyproject.toml $(PROJECTS) | $(PYTHON) $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) $(LOWEST)
	$(UV) pip compile --quiet --resolution lowest-direct --no-header --python $(PYTHON) \
		$(PROJECTS) --all-extras --group published --group dev -o $(LOWEST)/requirements.txt
	$(UV) pip sync --quiet --python $(LOWEST)/bin/python $(LOWEST)/requirements.txt
	$(TREE) --python $(LOWEST)/bin/python
	@touch $@

# What is newest changes any day: asked for at each run. The server that the tests call runs on the
# same versions, where only malformed requests differ (test_malformed_path.py).
.PHONY: $(NEWEST)/.installed
$(NEWEST)/.installed: $(INSTALLED) | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) $(NEWEST)
	$(SYNC) --python $(NEWEST)/bin/python requirements.lock
	$(UV) pip compile --quiet --upgrade --no-header --python $(PYTHON) \
		client/pyproject.toml --extra cli -o $(NEWEST)/requirements.txt
	$(UV) pip install --quiet --python $(NEWEST)/bin/python -r $(NEWEST)/requirements.txt
	$(TREE) --python $(NEWEST)/bin/python

# The lowest versions that the client runs with, by the major version of protobuf. The tests import
# the server's packages of gRPC, which have to fit. They start no server: it needs a newer protobuf.
.venv/protobuf%/.installed: requirements.lock $(PROJECTS) | $(PYTHON) $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) .venv/protobuf$*
	$(SYNC) --python .venv/protobuf$*/bin/python requirements.lock
	echo "protobuf==$*.*" > .venv/protobuf$*/constraints.txt
	$(UV) pip compile --quiet --resolution lowest-direct --no-header --python $(PYTHON) \
		--constraints .venv/protobuf$*/constraints.txt client/pyproject.toml --extra cli \
		-o .venv/protobuf$*/requirements.txt
	version="$$(sed -n 's/^grpcio-status==//p' .venv/protobuf$*/requirements.txt)"; \
	$(UV) pip install --quiet --python .venv/protobuf$*/bin/python \
		-r .venv/protobuf$*/requirements.txt "grpcio-reflection==$$version" \
		"grpcio-channelz==$$version" "grpcio-testing==$$version"
	$(TREE) --python .venv/protobuf$*/bin/python
	@touch $@

$(UV): requirements-tools.lock | $(PYTHON)
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --require-hashes \
		-r <(awk '/^uv==/ { own = 1 } own { print } own && !/\\$$/ { exit }' requirements-tools.lock)
	@touch $@
