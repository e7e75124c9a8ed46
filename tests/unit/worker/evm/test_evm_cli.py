"""`warpgrid evm` by hand: exit statuses, output formats, and what it says when something is missing."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conformance.vectors import VECTORS, needs_vectors, read
from worker.evm.cli import app
from worker.evm.workloads import WORKLOADS

SECRET = "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"
SENDER, CONTRACT = "0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b", "0x" + "00" * 19 + "cc"
# MSTORE(0, 2 ** calldata[0]), LOG0 of nothing, return the word
POWER = "0x5f3560020a5f525f5f5fa060205ff3"


def run_evm(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def transaction(**fields: Any) -> dict[str, Any]:
    return {
        "gas": "0x186a0",
        "gasPrice": "0xa",
        "input": "0x" + "00" * 31 + "05",
        "nonce": "0xac",
        "to": CONTRACT,
        "value": "0x1",
        "secretKey": SECRET,
    } | fields


def block(*transactions: dict[str, Any], **env: Any) -> dict[str, Any]:
    return {
        "alloc": {
            SENDER: {"balance": "0x5ffd4878be161d74", "nonce": "0xac"},
            CONTRACT: {"balance": "0x1", "nonce": "0x1", "code": POWER},
        },
        "env": {
            "currentCoinbase": "0x" + "aa" * 20,
            "currentGasLimit": "0x1c9c380",
            "currentBaseFee": "0x7",
            "currentNumber": "1",
            "currentTimestamp": "1000",
            "currentRandom": "0x0",
        }
        | env,
        "txs": list(transactions),
    }


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "input.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="module")
def state_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, raw = next(iter(read(VECTORS / "state_tests" / "osaka.tar.gz")))
    path = tmp_path_factory.mktemp("tests") / Path(name).name
    path.write_bytes(raw)
    return path


# ---- state tests ----


@needs_vectors
def test_statetest_ends_with_counts(state_test: Path) -> None:
    result = run_evm("statetest", state_test, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[-1] == {"passed": len(lines) - 1, "failed": 0, "names": []}
    assert {"name", "pass", "fork", "stateRoot", "error"} == set(lines[0])


@needs_vectors
def test_a_trace_is_geths_lines_and_ends_with_the_root(state_test: Path) -> None:
    result = run_evm("statetest", state_test, "--trace", "--json")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    verdict = json.loads(result.stdout.splitlines()[0])
    *instructions, summary, root = lines
    assert {"pc", "op", "gas", "gasCost", "memSize", "stack", "depth", "refund", "opName"} == set(instructions[0])
    assert (instructions[0]["pc"], instructions[0]["depth"]) == (0, 1)
    assert set(summary) >= {"output", "gasUsed"}
    assert root == {"stateRoot": verdict["stateRoot"]}


@needs_vectors
def test_executors_trace_alike(state_test: Path) -> None:
    traces = [run_evm("statetest", state_test, "--trace", "--executor", name).stderr for name in ("cpu", "reference")]
    assert traces[0] == traces[1]


@needs_vectors
@pytest.mark.parametrize("executor", ["cpu", "reference"])
def test_no_system_call_comes_before_a_state_test(state_test: Path, tmp_path: Path, executor: str) -> None:
    """A counter in the place of the contract of beacon roots, which a block's opening would have called (EIP-4788)."""
    beacon_roots, count = "0x000f3df6d732807ef1319fb7b8bb8522d0beac02", "0x60015f54015f5500"
    content = json.loads(state_test.read_text())
    for test in content.values():
        test["pre"][beacon_roots] = {"balance": "0x0", "nonce": "0x1", "code": count, "storage": {}}
        test["pre"][test["transaction"]["to"]]["code"] = f"0x5f5f5f5f5f73{beacon_roots[2:]}5af100"  # calls it
    result = run_evm("statetest", written(tmp_path, content), "--trace", "--executor", executor)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    loaded = [after["stack"][-1] for line, after in pairwise(lines) if line.get("opName") == "SLOAD"]
    assert loaded
    assert set(loaded) == {"0x0"}


@needs_vectors
def test_a_wrong_root_fails(state_test: Path, tmp_path: Path) -> None:
    tests = json.loads(state_test.read_text())
    for test in tests.values():
        for entries in test["post"].values():
            for entry in entries:
                entry["hash"] = "0x" + "11" * 32
    result = run_evm("statetest", written(tmp_path, tests))
    assert result.exit_code == 1
    assert "root mismatch" in result.stdout


@needs_vectors
def test_run_shows_what_happened(state_test: Path) -> None:
    result = run_evm("run", state_test, "--json")
    report = json.loads(result.stdout.splitlines()[0])
    assert result.exit_code == 0
    assert report["gasUsed"] >= 0
    assert report["stateRoot"].startswith("0x")


# ---- blocks ----


def test_a_block_gives_result_and_alloc(tmp_path: Path) -> None:
    path = written(tmp_path, block(transaction(), transaction(nonce="0xad", value="0x2"), transaction(nonce="0xff")))
    result = run_evm("run", path, "--fork", "Cancun", "--json")
    answer = json.loads(result.stdout)
    receipts = answer["result"]["receipts"]
    assert [one["status"] for one in receipts] == ["0x1", "0x1"]
    assert int(receipts[1]["cumulativeGasUsed"], 16) == int(answer["result"]["gasUsed"], 16)
    assert receipts[1]["logs"][0]["logIndex"] == "0x1"
    assert [one["index"] for one in answer["result"]["rejected"]] == [2]
    assert answer["alloc"][CONTRACT]["balance"] == hex(1 + 1 + 2)
    reference = run_evm("run", path, "--fork", "Cancun", "--json", "--executor", "reference")
    assert json.loads(reference.stdout) == answer


def test_a_folder_in_and_a_folder_out(tmp_path: Path) -> None:
    for name, part in block(transaction()).items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    out = tmp_path / "out"
    result = run_evm("run", tmp_path, "--fork", "Cancun", "--out", out, "--trace")
    assert result.exit_code == 0
    answer = json.loads((out / "result.json").read_text())
    assert set(answer) >= {"stateRoot", "txRoot", "receiptsRoot", "logsHash", "logsBloom", "receipts", "gasUsed"}
    assert CONTRACT in json.loads((out / "alloc.json").read_text())
    (trace,) = out.glob("trace-0-0x*.jsonl")
    assert json.loads(trace.read_text().splitlines()[-1])["output"] == f"{2**5:064x}"


def test_a_signed_transaction_needs_no_key(tmp_path: Path) -> None:
    unsigned = block(transaction())
    unsigned["txs"] = [transaction(secretKey=None, v="0x1b", r="0x1", s="0x1")]
    answer = json.loads(run_evm("run", written(tmp_path, unsigned), "--fork", "Cancun", "--json").stdout)
    assert answer["result"]["rejected"][0]["error"].startswith(("insufficient", "nonce"))


def test_a_prague_block_without_its_contracts_says_so_and_runs_without_them(tmp_path: Path) -> None:
    path = written(tmp_path, block(transaction()))
    whole = run_evm("run", path, "--fork", "Prague")
    assert (whole.exit_code, "has no code" in whole.stderr) == (2, True)
    assert run_evm("run", path, "--fork", "Prague", "--transactions-only").exit_code == 0


PARENT = {"parentBaseFee": "0x3e8", "parentGasUsed": "0x989680", "parentGasLimit": "0x1312d00"}  # half full: 1,000 wei


def without_base_fee(**env: Any) -> dict[str, Any]:
    content = block(transaction(gasPrice="0x3e8"), **env)
    del content["env"]["currentBaseFee"]
    return content


@pytest.mark.parametrize(
    ("env", "base_fee"),
    [
        (PARENT, 1000),
        (PARENT | {"parentGasUsed": "0x1312d00"}, 1125),
        (PARENT | {"parentGasUsed": "0"}, 875),
        (PARENT | {"parentBaseFee": "7", "parentGasUsed": "0x989681"}, 8),
    ],
)
def test_a_base_fee_follows_from_the_parent(tmp_path: Path, env: dict[str, str], base_fee: int) -> None:
    path = written(tmp_path, without_base_fee(**env))
    result = json.loads(run_evm("run", path, "--fork", "Cancun", "--json").stdout)["result"]
    assert int(result["currentBaseFee"], 16) == base_fee
    assert ("rejected" in result) == (base_fee > 1000)


def test_excess_blob_gas_follows_from_the_parent(tmp_path: Path) -> None:
    env = {"parentExcessBlobGas": "0x60000", "parentBlobGasUsed": "0x20000"}  # the target of Cancun is 0x60000
    path = written(tmp_path, block(transaction(), **env))
    result = json.loads(run_evm("run", path, "--fork", "Cancun", "--json").stdout)["result"]
    assert result["currentExcessBlobGas"] == "0x20000"


@pytest.mark.parametrize(
    ("fork", "uncles", "difficulty"),
    [
        # Sixteen seconds: EIP-100 neither adds nor takes away, with ommers it adds a 2,048th. The bomb is 2^29 in
        # London (EIP-3554), 2^36 in Berlin (EIP-2384). Homestead takes nothing away either below twenty seconds.
        ("London", {}, 2**49 + 2**29),
        ("London", {"parentUncleHash": "0x" + "11" * 32}, 2**49 + 2**38 + 2**29),
        ("Berlin", {"parentUncleHash": "0x" + "00" * 32}, 2**49 + 2**36),
        ("Homestead", {"currentNumber": "100"}, 2**49),
    ],
)
def test_a_difficulty_follows_from_the_parent(
    tmp_path: Path, fork: str, uncles: dict[str, str], difficulty: int
) -> None:
    env = {"currentNumber": "12800000", "currentTimestamp": "100015", "parentTimestamp": "99999"}
    env |= {"parentDifficulty": hex(2**49)} | uncles
    path = written(tmp_path, block(**env))
    result = json.loads(run_evm("run", path, "--fork", fork, "--json").stdout)["result"]
    assert int(result["currentDifficulty"], 16) == difficulty


@pytest.mark.parametrize(
    ("fork", "env", "sentence"),
    [
        ("Cancun", {}, "env lacks currentBaseFee, and parentBaseFee"),
        ("Cancun", PARENT | {"currentNumber": "0"}, "env lacks currentBaseFee, and parentBaseFee"),
        ("Cancun", {"parentBaseFee": "1"}, "env lacks the field 'parentGasUsed'"),
        ("Cancun", PARENT | {"parentGasLimit": "1"}, "env has a parentGasLimit below 2"),
        ("Cancun", PARENT | {"currentDifficulty": "1"}, "env has a currentDifficulty"),
        ("Berlin", {}, "env lacks currentDifficulty, and parentDifficulty"),
        ("Berlin", {"parentDifficulty": "0x2000", "parentTimestamp": "1000"}, "currentTimestamp is no later"),
    ],
)
def test_what_follows_from_nothing_is_asked_for(tmp_path: Path, fork: str, env: dict[str, str], sentence: str) -> None:
    result = run_evm("run", written(tmp_path, without_base_fee(**env)), "--fork", fork)
    assert result.exit_code == 2
    assert sentence in result.stderr


# ---- what is refused ----


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"post": {"Atlantis": []}, "pre": {}}}'])
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    for command in ("statetest", "run"):
        result = run_evm(command, path)
        assert result.exit_code == 2
        assert str(path) in result.output


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"env": {}}, "env lacks the field 'currentNumber'"),
        ({"alloc": {"0x12": {}}}, "alloc cannot be read: 0x12 has 1 bytes, not 20"),
        ({"txs": [{"nonce": "0x0", "gas": "0x0"}]}, "txs[0] lacks the field 'gasPrice'"),
        ({"txs": "0xzz"}, "txs cannot be read"),
        ({"alloc": []}, "alloc cannot be read"),
    ],
)
def test_bad_blocks_name_the_part_and_the_field(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    result = run_evm("run", written(tmp_path, block(transaction()) | change), "--fork", "Cancun")
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_unknown_forks_workloads_and_paths(tmp_path: Path) -> None:
    unknown = run_evm("run", written(tmp_path, block()), "--fork", "Atlantis")
    assert (unknown.exit_code, "use one of Frontier" in unknown.stderr) == (2, True)
    assert "there are erc20_transfer" in run_evm("bench", "nothing").stderr
    assert "does not exist" in run_evm("run", tmp_path / "absent.json").stderr
    assert "holds no alloc.json" in run_evm("run", tmp_path).stderr


class _CudaError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"cuda error {status}")
        self.status = status


def fake_cupy(monkeypatch: pytest.MonkeyPatch, status: int | None, devices: int = 0) -> None:
    """A cupy whose driver answers with this status, or tells of so many devices."""

    def count() -> int:
        if status is not None:
            raise _CudaError(status)
        return devices

    cupy = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=_CudaError, runtimeGetVersion=lambda: 13_000)
    cupy.cuda = SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(35, "too old for CUDA 13: update it"), (100, "does not answer"), (None, "this machine has 0")],
)
def test_no_gpu_and_a_wrong_driver_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, status: int | None, sentence: str
) -> None:
    fake_cupy(monkeypatch, status)
    result = run_evm("bench", "plain_transfer", "--executor", "gpu")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "--executor cpu" in result.stderr


def test_without_cupy_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'warpgrid[gpu]'" in run_evm("bench", "plain_transfer", "--executor", "gpu").stderr


@pytest.mark.parametrize("command", [("run", "--executor", "gpu"), ("statetest", "--executor", "gpu", "--trace")])
def test_what_a_gpu_does_not_do_is_refused(tmp_path: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    result = run_evm(name, written(tmp_path, block()), *options)
    assert result.exit_code == 2
    assert "--executor cpu" in result.stderr


# ---- bench, disasm, help ----


def test_bench_measures_what_it_is_asked_for() -> None:
    result = run_evm("bench", "plain_transfer", "swap", "-n", 64, "--repeats", 1, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["workload"] for one in lines] == ["plain_transfer", "swap"]
    assert all(one["count"] == 64 and one["transactions_per_second"] > 0 for one in lines)
    assert "swap" in WORKLOADS


def test_disasm() -> None:
    assert "PUSH1 0x01" in run_evm("disasm", "0x6001").stdout
    assert run_evm("disasm", "zz").exit_code == 2


@pytest.mark.parametrize("command", ["statetest", "run", "bench", "disasm"])
def test_every_help_has_an_example(command: str) -> None:
    assert f"warpgrid evm {command}" in run_evm(command, "--help").stdout
