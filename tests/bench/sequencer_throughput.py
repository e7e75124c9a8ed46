"""Transfers a second through the whole sequencer: web3.py's batches in, receipts out, with each executor.

Floor: executing the same blocks takes `execution_s`; the rest is admission (decoding, key recovery), roots, and the
durable append. Every root is checked by executing the chain again with EELS. Appends JSON lines, one an executor, to
tests/bench/results/.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from eth_account import Account

from node.executors import EXECUTORS
from tests.integration.clients.token_transfers import (
    check_with_eels,
    connect,
    deploy_token,
    send_all,
    signed_transfers,
)
from tests.integration.local_sequencer import DEV_KEYS, running_sequencer

TRANSFERS = 1_000
TOKEN_TRANSFERS = 200
RESULTS = Path(__file__).parent / "results" / "sequencer_throughput.jsonl"


def measure(data_dir: Path, executor: str) -> dict[str, object]:
    """One run on a fresh chain; `cpu_s` is the sequencer's alone, without web3.py's."""
    account = Account.from_key(DEV_KEYS[0])
    with running_sequencer(data_dir, interval_ms=250, executor=executor) as running:
        web3 = connect(running.url)
        raws = signed_transfers(web3, account, deploy_token(web3, account), plain=TRANSFERS, calls=TOKEN_TRANSFERS)
        started_s = perf_counter()
        send_all(web3, raws)
        elapsed_s = perf_counter() - started_s
        check_with_eels(web3)
    execution_s = running.metrics["warpgrid_execution_seconds_sum"]
    sealing_s = running.metrics["warpgrid_sealing_seconds_sum"]
    return {
        "benchmark": "sequencer_throughput",
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
        "device": f"{platform.machine()} CPU",
        "executor": executor,
        "transfers": TRANSFERS,
        "token_transfers": TOKEN_TRANSFERS,
        "elapsed_s": round(elapsed_s, 3),
        "transactions_per_second": round(len(raws) / elapsed_s),
        "execution_s": round(execution_s, 3),
        "sealing_s": round(sealing_s, 3),
        "cpu_s": round(running.metrics["process_cpu_seconds"], 3),
    }


def main() -> None:
    """Measure, print, append."""
    RESULTS.parent.mkdir(exist_ok=True)
    for executor in EXECUTORS:
        with tempfile.TemporaryDirectory() as data_dir:
            line = json.dumps(measure(Path(data_dir), executor))
        with RESULTS.open("a") as results:
            results.write(line + "\n")
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
