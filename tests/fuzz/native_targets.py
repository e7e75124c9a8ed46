"""libFuzzer targets over the native core (tests/fuzz/native/*.cpp), built with clang and its sanitizers. Where clang is
missing nothing is built, and `run_native` says how to get it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["NATIVE_TARGETS", "run_native"]

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "native"
BUILD = ROOT / "build" / "fuzz"
INPUT_BYTES_MAX = {"execution": 1_024, "precompiles": 1_024, "modexp": 168}
NATIVE_TARGETS = tuple(sorted(INPUT_BYTES_MAX))

# Of the undefined-behaviour checks those that a wrong offset, shift or sum trips: all of them make clang take many
# minutes over inlined field arithmetic. `make sanitize` has all, from g++.
_CHECKS = "-fsanitize=fuzzer,address,bounds,shift,signed-integer-overflow,integer-divide-by-zero,return,unreachable"
_OPTIONS = ("-std=gnu++20", "-O1", "-g", "-fno-omit-frame-pointer", _CHECKS, "-fno-sanitize-recover=all")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def run_native(name: str, runs: int, seconds_max: int = 0) -> bool:
    """Build one target and run it; False when it has a finding. Writes a line."""
    if shutil.which("clang++") is None:
        sys.stdout.write(f"{name}: not run, clang++ is missing (sudo apt-get install -y clang)\n")
        return True
    binary = BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    command = ["clang++", *_OPTIONS, f"-I{ROOT}", str(SOURCES / f"{name}.cpp"), "-o", str(binary)]
    subprocess.run(command, check=True)
    corpus = BUILD / f"{name}-corpus"
    corpus.mkdir(exist_ok=True)
    limits = [f"-runs={runs}", f"-max_total_time={seconds_max}", f"-max_len={INPUT_BYTES_MAX[name]}", "-timeout=20"]
    done = subprocess.run(
        [str(binary), *limits, "-seed=1", "-print_final_stats=1", f"-artifact_prefix={BUILD}/{name}-", str(corpus)],
        capture_output=True,
        text=True,
        check=False,
    )
    executed = _EXECUTED.findall(done.stderr)
    verdict = "ok" if done.returncode == 0 else f"FAILED\n{done.stderr[-4_000:]}"
    sys.stdout.write(f"{name}: {executed[-1] if executed else 0} inputs, {verdict}\n")
    sys.stdout.flush()
    return done.returncode == 0
