#!/bin/bash
# Builds the EVM and the cryptography with address and undefined-behaviour sanitizers, and runs their tests on that build:
# every state test and vector, the differential, traces, mutated programs. Needs g++ with libasan; ten minutes on two cores.
#
#   deploy/sanitize.sh PYTHON CMAKE
set -euo pipefail
python=$1 cmake=$2
root=$PWD build=build/sanitized tree=build/sanitized/tree

"$cmake" -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DWARPGRID_SANITIZE=ON >/dev/null
"$cmake" --build "$build" --parallel --target warpgrid_core warpgrid_evm

# A copy of the Python beside these libraries: each finds its libraries beside itself.
rm -rf "$tree" && mkdir -p "$tree"
cp -r pyproject.toml core protos zk market sequencer worker node tests "$tree"
rm -rf "$tree/core/native/lib" && mkdir -p "$tree/core/native/lib"
cp "$build"/core/native/libwarpgrid_core.so "$build"/worker/evm/native/libwarpgrid_evm.so "$tree/core/native/lib"
ln -sfn "$(realpath ../shared)" "$build/shared"

cd "$tree"
export LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONDONTWRITEBYTECODE=1
export PYCRYPTODOME_DISABLE_DEEPBIND=1  # the reference's hashes; libasan refuses libraries loaded so
run() { "$python" -m pytest -p no:cacheprovider "$@"; }
"$python" -m tests.conformance.mixed_batch ../shared/vectors/state_tests/*.tar.gz --engine cpu
run -m "conformance or not conformance" tests/conformance/test_precompiles.py tests/conformance/test_vectors_as_transactions.py
run tests/unit/worker/evm/test_engine.py tests/differential tests/conformance/test_native_traces.py
"$python" -m tests.differential.many --right single-step --programs 20000
echo "no sanitizer spoke up in $root"
