"""viem, ethers 6, cast, forge create, forge script and hardhat 2, unchanged, against a running sequencer.

They come from npm (`make clients` installs them); without them these tests are skipped.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.local_sequencer import DEV_ACCOUNTS, DEV_KEYS, RunningSequencer, running_sequencer

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
FOUNDRY = {name: MODULES / "@foundry-rs" / f"{name}-linux-amd64" / "bin" / name for name in ("cast", "forge")}
KEY = DEV_KEYS[0]
TIMEOUT_S = 180

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "viem").exists(),
    reason="the JavaScript clients are not installed; `make clients` does it (needs node and npm)",
)


@pytest.fixture(scope="module")
def sequencer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSequencer]:
    with running_sequencer(tmp_path_factory.mktemp("sequencer")) as running:
        yield running


def run(command: list[str], folder: Path = HERE, **environment: str) -> str:
    """A client's standard output; fails the test with everything it said."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize("client", ["viem", "ethers"])
def test_library(sequencer: RunningSequencer, client: str) -> None:
    assert run(["node", f"{client}.mjs", sequencer.url, sequencer.web_socket_url, KEY]).endswith("ok\n")


def cast(sequencer: RunningSequencer, *arguments: str) -> str:
    return run([str(FOUNDRY["cast"]), *arguments, "--rpc-url", sequencer.url]).strip()


def forge(sequencer: RunningSequencer, output: Path, subcommand: str, *arguments: str) -> str:
    network = ["--rpc-url", sequencer.url, "--private-key", KEY, "--broadcast"]
    command = [str(FOUNDRY["forge"]), subcommand, *network, *arguments]
    paths = {"FOUNDRY_OUT": str(output / "out"), "FOUNDRY_CACHE_PATH": str(output / "cache")}
    return run(command, HERE, FOUNDRY_SOLC=str(HERE / "solc.mjs"), FOUNDRY_BROADCAST=str(output), **paths)


def test_cast_and_forge_create(sequencer: RunningSequencer, tmp_path: Path) -> None:
    contract = "contracts/TestToken.sol:TestToken"
    said = forge(sequencer, tmp_path, "create", contract, "--json", "--constructor-args", "1000000")
    token = json.loads(said[said.index("{") :])["deployedTo"]
    receiver = "0x000000000000000000000000000000000000e11C"
    sent = cast(sequencer, "send", token, "transfer(address,uint256)", receiver, "19", "--private-key", KEY, "--json")
    assert json.loads(sent)["status"] == "0x1"
    assert cast(sequencer, "call", token, "balanceOf(address)(uint256)", receiver) == "19"
    assert receiver[2:].lower() in cast(sequencer, "logs", "--address", token, "--from-block", "1", "--json")
    assert int(cast(sequencer, "balance", DEV_ACCOUNTS[1])) > 0
    assert cast(sequencer, "chain-id") == "7357"


def test_forge_script(sequencer: RunningSequencer, tmp_path: Path) -> None:
    said = forge(sequencer, tmp_path, "script", "forge/Deploy.s.sol:Deploy", "--slow")
    assert "ONCHAIN EXECUTION COMPLETE" in said


def test_hardhat(sequencer: RunningSequencer, tmp_path: Path) -> None:
    hardhat = str(MODULES / ".bin" / "hardhat")
    said = run(
        [hardhat, "run", "--no-compile", "hardhat/token.js"],
        HERE,
        RPC_URL=sequencer.url,
        PRIVATE_KEY=KEY,
        HARDHAT_OUTPUT=str(tmp_path),
        HARDHAT_DISABLE_TELEMETRY_PROMPT="true",
    )
    assert said.endswith("ok\n")
