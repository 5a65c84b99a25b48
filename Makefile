# `make demo` and `make test` do all set-up by themselves: the virtual environment is made once in .venv, reused, and brought up to
# date when pyproject.toml changes. Arguments for pytest: make test ARGS="-k listen -x"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRODUCT := $(VENV)/.product
EVERYTHING := $(VENV)/.everything
VM := $(VENV)/.vm
LOWEST := $(VENV)-lowest/.installed
RELEASE := $(VENV)/.release
FUZZ := $(VENV)/.fuzz
JAVASCRIPT := $(VENV)/javascript/.installed
ARGS ?=
JOBS ?= 4
COVERAGE_FLOOR := 66

.PHONY: help demo test quick coverage test-python313 test-lowest test-sanitized test-image test-engine test-packages dist release reproducible lock audit lint lint-kernel format check-1 check-2 check-3 check-4 check-5 check-6 bench soak soak-kinds kept-legs model conformance fuzz test-kernel test-kernel-debug bench-kernel clean
.DEFAULT_GOAL := help

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

demo: $(PRODUCT)  ## the product in a quarter of a minute: both proxies, a server, a client, an eavesdropper
	@$(BIN)/stcp-proxy demo

# More processes than the two cores of CI: many tests wait. The tests of one file run in one process.
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
FAST_FOLDERS = tests/unit tests/protocol tests/contract

test: $(EVERYTHING)  ## all tests, four processes at a time; a test that this machine cannot run is skipped, with the reason
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

quick: $(EVERYTHING)  ## unit, protocol and contract tests without the long pauses: about a minute
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow" $(ARGS) $(FAST_FOLDERS)

coverage: $(EVERYTHING)  ## the lines and branches that the tests of `make quick` reach
	@rm -rf .coverage && mkdir .coverage
	$(BIN)/coverage run -m pytest -q $(SIDE_BY_SIDE) -m "not slow" $(ARGS) $(FAST_FOLDERS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_FLOOR)

test-python313: $(EVERYTHING)  ## the tests of `make quick` on Debian 13 with Python 3.13 (root, mmdebstrap)
	JOBS=$(JOBS) tests/debian13 $(ARGS)

test-lowest: $(LOWEST)  ## the same tests with the lowest versions that pyproject.toml admits
	$(VENV)-lowest/bin/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow" $(ARGS) $(FAST_FOLDERS)

# The C of the package; `make lint-kernel` checks the C of the module.
C_FILES := $(wildcard stcp_proxy/relay/lane/*.[ch] stcp_proxy/lab/load/*.[ch] fuzz/c/*.[ch])
PRETTIER = $(VENV)/javascript/node_modules/.bin/prettier --config tools/javascript/prettier.json 'stcp_proxy/admin/assets/*.js' \
	'conformance/examples/node/*.js'

lint: $(EVERYTHING) $(JAVASCRIPT)  ## the list of tracked files, ruff, mypy --strict, clang-format, prettier
	tools/tracked_files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	MYPYPATH=conformance $(BIN)/mypy --package stcp_conformance
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(PRETTIER) --check

lint-kernel:  ## checkpatch, sparse and gcc W=1 on kernel/ (linux-source-6.1, sparse and a kernel's headers)
	tests/kernel/lint

format: $(EVERYTHING) $(JAVASCRIPT)  ## let ruff, clang-format and prettier rewrite the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_FILES)
	$(PRETTIER) --write

# What the product has to do with real software, whole and with its figures. `make test` has all of it too, most of it smaller.
FULL = STCP_FULL_SIZE=1 $(BIN)/python -m pytest -q -s --timeout=1800 $(ARGS)

check-1: $(EVERYTHING)  ## Redis: benchmark, pipelining, mass insertion, values of 64 MB
	$(FULL) tests/real/test_1_redis.py

check-2: $(EVERYTHING)  ## a web server and iperf3
	$(FULL) tests/real/test_2_web.py

check-3: $(EVERYTHING)  ## server speaks first, half-close, resets that leak nothing
	$(FULL) tests/integration/test_end_of_stream.py tests/integration/test_resets.py

check-4: $(EVERYTHING)  ## 2,000 connections at rest: memory of each, processor time
	$(FULL) tests/real/test_4_idle.py

check-5: $(EVERYTHING)  ## strangers, misbehaving peers, and changes on the way
	$(FULL) tests/integration/test_strangers.py tests/integration/test_meddling.py

check-6: $(EVERYTHING)  ## the least speed, against HAProxy with TLS
	$(BIN)/stcp-proxy bench --floor $(ARGS)

bench: $(EVERYTHING)  ## this project beside its peers on this machine
	$(BIN)/stcp-proxy bench $(ARGS)

soak: $(EVERYTHING)  ## five minutes of mixed load, with an eye on memory
	$(BIN)/stcp-proxy bench --soak $(ARGS)

soak-kinds: $(EVERYTHING)  ## sixteen kinds of tunnels side by side for an hour, every byte compared; ARGS="--minutes 90 keep-off"
	$(BIN)/python tools/soak_campaign.py $(ARGS)

kept-legs: $(EVERYTHING)  ## 500 kills of either proxy under churn, the thousandth connection of a leg, ten minutes of churn; ARGS="kills" for a part
	$(BIN)/python tools/kept_leg_campaign.py $(ARGS)

model:  ## the models of docs/models, all states of each (spin, gcc); the handshakes where the prover ProVerif is installed
	docs/models/check
	docs/models/prove

FIRST_VERSION = 21b20cdf02e39106f6cf8ca0f4e7f6d60d55978e
CONFORMANCE = cd conformance && $(abspath $(BIN))/python

conformance: $(EVERYTHING)  ## the conformance kit against this proxy and against its example in JavaScript, and the kit's mutants (nodejs)
	$(CONFORMANCE) -m stcp_conformance implementations/stcp-proxy.toml $(ARGS)
	$(CONFORMANCE) -m stcp_conformance examples/node/conformance.toml $(ARGS)
	$(CONFORMANCE) mutants.py
	first=$$(mktemp -d) && trap 'rm -rf "$$first"' EXIT && git archive $(FIRST_VERSION) stcp_proxy | tar -x -C "$$first" && \
		$(CONFORMANCE) -m stcp_conformance implementations/stcp-proxy-first.toml --word python=$(abspath $(BIN))/python --word first="$$first" $(ARGS)

fuzz: $(FUZZ)  ## coverage-guided fuzzers, a minute each; ARGS="--seconds 600 --only kernel" (clang, libclang-rt-14-dev)
	cd fuzz && $(abspath $(BIN))/python -m stcp_fuzz $(ARGS)

test-sanitized: $(EVERYTHING)  ## the engine's part in C under the address and undefined-behaviour sanitizers
	tests/sanitized $(ARGS)

# IMAGES=dist: the archives that `make dist` has made; else each of these makes its own.
test-image: $(EVERYTHING)  ## the container images: two of them with Redis between two hosts (root, buildah, mmdebstrap)
	tests/image/run $(IMAGES)

test-engine: $(EVERYTHING)  ## configs/compose and configs/kubernetes, run by Podman with an unmodified Redis (root, buildah, mmdebstrap)
	tests/engine/run $(if $(IMAGES),--images $(IMAGES)) $(ARGS)

dist: $(EVERYTHING) $(RELEASE)  ## everything that is released, in dist/: wheels, packages, images, bills of materials, checksums (root, mmdebstrap, buildah)
	packaging/dist dist

test-packages: dist  ## the wheels and Debian packages of dist/: installed, used, upgraded, removed (root, mmdebstrap, lintian, dkms)
	tests/packages/wheels dist
	tests/packages/debian dist
	tests/packages/systemd dist

release: $(EVERYTHING) $(RELEASE)  ## prepare VERSION=1.2.3; a dry run unless APPLY=yes (docs/RELEASE.md)
	$(BIN)/python tools/release.py $(VERSION) $(if $(filter yes,$(APPLY)),--apply) $(ARGS)

reproducible:  ## everything of the last commit made twice and compared byte by byte; AGAINST=dist compares with that folder
	packaging/reproduce $(AGAINST)

lock: $(RELEASE)  ## packaging/requirements.txt: the newest libraries that pyproject.toml admits, those for spans included, with checksums
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--native-tls --extra otlp pyproject.toml --output-file packaging/requirements.txt
	echo setuptools | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--native-tls - --output-file packaging/build-requirements.txt

ASK_PYPI = $(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement packaging/requirements.txt
audit: $(RELEASE)  ## known weaknesses of the locked libraries, asked of PyPI; ADVISORIES=FOLDER reads a copy of its advisory database
	$(if $(ADVISORIES),$(BIN)/python tools/offline_audit.py $(ADVISORIES),$(ASK_PYPI))

# vng calls virtme-run, which stands beside it.
IN_VM = VNG=$(abspath $(BIN))/vng PATH=$(abspath $(BIN)):$$PATH

# The module is never loaded here: a virtual machine boots Debian's kernel without KVM. What that needs stands in docs/KERNEL.md.
test-kernel: $(EVERYTHING) $(VM)  ## stcp.ko in a virtual machine: its own tests, the engine's contract, real programs
	$(IN_VM) tests/kernel/run $(ARGS) module contract programs

test-kernel-debug: $(EVERYTHING) $(VM)  ## the same and ten minutes of abuse under KASAN, lockdep and kmemleak; builds a kernel first
	$(IN_VM) tests/kernel/debug-kernel
	$(IN_VM) STCP_KERNEL_MINUTES=90 tests/kernel/run --debug $(ARGS) module contract abuse

bench-kernel: $(EVERYTHING) $(VM)  ## both engines beside HAProxy with TLS in virtual machines, medians of three boots: only ratios mean anything
	$(IN_VM) $(BIN)/python -m tests.kernel.bench medians 3 $(ARGS)

clean:  ## remove everything that was made
	rm -rf $(VENV) $(VENV)-lowest .coverage build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f stcp_proxy/relay/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- set-up ------------------------------------------------------------------------------------------------------------------

INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --editable
OR_SAY_WHY := >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log; exit 1; }

$(BIN)/python: tools/make_venv.py
	@$(PYTHON) tools/make_venv.py $(VENV)
	@touch -c $@

$(PRODUCT): $(BIN)/python pyproject.toml setup.py $(wildcard stcp_proxy/relay/lane/*)
	@echo "installing stcp-proxy into $(VENV)"
	@$(INSTALL) . $(OR_SAY_WHY)
	@touch $@

$(EVERYTHING): $(PRODUCT)
	@echo "installing what tests, lab and checks need into $(VENV)"
	@$(INSTALL) '.[lab,test,dev]' $(OR_SAY_WHY)
	@touch $@

$(RELEASE): $(PRODUCT)
	@echo "installing what makes a release into $(VENV)"
	@$(INSTALL) '.[release]' $(OR_SAY_WHY)
	@touch $@

$(FUZZ): $(EVERYTHING)
	@echo "installing what fuzzes into $(VENV)"
	@$(INSTALL) '.[fuzz]' $(OR_SAY_WHY)
	@touch $@

$(VM): $(BIN)/python
	@echo "installing what boots a virtual machine into $(VENV)"
	@$(BIN)/python -m pip install --disable-pip-version-check virtme-ng==1.42 $(OR_SAY_WHY)
	@touch $@

# The lock file holds the formatter's version and checksum.
$(JAVASCRIPT): $(BIN)/python tools/javascript/package.json tools/javascript/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing, which installs the formatter of JavaScript: apt-get install npm"; exit 1; }
	@echo "installing the formatter of JavaScript into $(VENV)"
	@mkdir -p $(VENV)/javascript
	@cp tools/javascript/*.json $(VENV)/javascript
	@cd $(VENV)/javascript && npm ci --no-audit --no-fund >../install.log 2>&1 || { cat ../install.log; exit 1; }
	@touch $@

$(LOWEST): tools/lowest_versions.py tools/make_venv.py pyproject.toml setup.py $(wildcard stcp_proxy/relay/lane/*)
	@rm -rf $(VENV)-lowest
	@$(PYTHON) tools/make_venv.py $(VENV)-lowest
	@echo "installing the lowest versions of everything into $(VENV)-lowest"
	@$(PYTHON) tools/lowest_versions.py test >$(VENV)-lowest/versions.txt
	@$(VENV)-lowest/bin/python -m pip install --disable-pip-version-check --constraint $(VENV)-lowest/versions.txt \
		--editable '.[test]' >$(VENV)-lowest/install.log 2>&1 || { cat $(VENV)-lowest/install.log; exit 1; }
	@touch $@
