"""`make fuzz`: every decoder under atheris, then the native core under libFuzzer, one after the other.

python -m tests.fuzz [RUNS] [TARGET...]
"""

import importlib.util
import subprocess
import sys

from tests.fuzz.native_targets import NATIVE_TARGETS, run_native
from tests.fuzz.targets import TARGETS

RUNS = 200_000
INPUT_BYTES_MAX = 4_096


def main(arguments: list[str]) -> int:
    """Exit status 1 when a target has a finding. Writes a line for each target."""
    runs = int(arguments[0]) if arguments else RUNS
    names = arguments[1:] or [*TARGETS, *NATIVE_TARGETS]
    if importlib.util.find_spec("atheris") is None:
        sys.stdout.write("atheris is not installed here (it has no build for this Python); no decoder was fuzzed\n")
        names = [name for name in names if name in NATIVE_TARGETS]
    outcomes = [run_native(name, runs) if name in NATIVE_TARGETS else _fuzz(name, runs) for name in names]
    return 0 if all(outcomes) else 1


def _fuzz(name: str, runs: int) -> bool:
    options = [f"-runs={runs}", f"-max_len={INPUT_BYTES_MAX}", "-seed=1", "-print_final_stats=1", "-timeout=20"]
    command = [sys.executable, "-m", "tests.fuzz.coverage_guided", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    executed = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    verdict = "ok" if done.returncode == 0 else f"FAILED\n{done.stderr[-4_000:]}"
    sys.stdout.write(f"{name}: {executed[0] if executed else 0} inputs, {verdict}\n")
    sys.stdout.flush()
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
