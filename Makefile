# The whole workflow. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
NATIVE_SOURCES := $(shell find CMakeLists.txt core worker -path '*/lib' -prune -o \( -name '*.hpp' -o -name '*.cpp' -o -name '*.def' -o -name '*.cuh' -o -name 'CMakeLists.txt' \) -print)
NATIVE_STAMP := core/native/lib/.built

.PHONY: help setup native testnet test check conformance bench soak fuzz sanitize clients contracts protos cubins wheel lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(STAMP) $(NATIVE_STAMP) ## virtual environment, dependencies, native libraries (quick the second time)

$(STAMP): deploy/setup.sh pyproject.toml requirements-dev.lock
	@PYTHON=$(PYTHON) bash deploy/setup.sh $(VENV)
	@touch $@

native: $(NATIVE_STAMP) ## build the native libraries for this machine's CPU

$(NATIVE_STAMP): $(STAMP) $(NATIVE_SOURCES)
	@echo "==> native libraries"
	@$(BIN)/cmake -S . -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
	@$(BIN)/cmake --build build/native
	@$(BIN)/cmake --install build/native --prefix . >/dev/null
	@touch $@

testnet: setup ## start a local network (sequencer, workers, watcher) and ask it a question
	@$(BIN)/warpgrid testnet up --ask "What is the capital of France?"

test: setup ## the tests that CI runs
	@$(BIN)/python -m pytest -n 2

check: setup ## ruff, strict types, tidy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/tidy

conformance: setup ## every vector of ../shared/vectors, on every executor this machine has
	@$(BIN)/python -m pytest -n 2 -m conformance tests/conformance tests/differential

bench: setup ## benchmarks; each appends JSON lines to tests/bench/results/
	@$(BIN)/python -m tests.bench

soak: setup ## kill -9 and overload for minutes
	@$(BIN)/python -m pytest -m soak tests

fuzz: setup ## every decoder under atheris, and the native core under libFuzzer where clang is installed
	@$(BIN)/python -m tests.fuzz

sanitize: setup ## the EVM's tests on a build with address and undefined-behaviour sanitizers
	@deploy/sanitize.sh $(abspath $(BIN)/python) $(abspath $(BIN)/cmake)

clients: setup ## viem, ethers, cast, forge and hardhat against a running sequencer (needs node >= 20)
	@command -v npm >/dev/null || { echo "The JavaScript clients need node >= 20 and npm. Run:  sudo apt-get install -y nodejs npm" >&2; exit 1; }
	@cd tests/integration/clients && npm install --silent --no-save --no-audit --no-fund --ignore-scripts  # not `ci`: the lock lacks other platforms
	@$(BIN)/python -m pytest tests/integration/clients

contracts: ## recompile the Solidity sources (needs node >= 20); fails when a committed artifact differed
	@command -v npm >/dev/null || { echo "Recompiling contracts needs node >= 20 and npm. Run:  sudo apt-get install -y nodejs npm" >&2; exit 1; }
	@cd deploy/contracts && npm ci --silent && node compile.mjs

protos: setup ## generate protos/gen anew from the .proto files (`make check` compares)
	@$(BIN)/python -m protos.generate

lock: ## resolve pyproject.toml anew into the two lock files
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes -q pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes -q pyproject.toml --group dev -o requirements-dev.lock

cubins: setup ## GPU kernels for every architecture of core/gpu.py (needs nvcc; nobody else does)
	@$(BIN)/python -m core.build_kernels

wheel: setup ## dist/: one wheel for every Python and every Linux since glibc 2.17, with the native libraries
	@rm -rf dist build/wheel
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group wheel
	@CXX="$(abspath $(BIN))/python -m ziglang c++ -target $$(uname -m)-linux-gnu.2.17" \
		$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl

clean: ## remove everything that setup made
	@rm -rf $(VENV) build dist core/native/lib
