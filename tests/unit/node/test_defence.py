"""A worker that looks for challenges, against a chain that is a table of answers."""

from pathlib import Path
from typing import Any

from node.client import RpcClient
from node.disputes.defence import Defender
from node.keys import IdentityKey
from node.wallet import Wallet
from tests.unit.node.fake_rpc import serving
from worker.job_files import JobFiles


def test_every_block_is_looked_at_once(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    heads = iter((4, 4, 6))

    def logs(wanted: dict[str, Any]) -> list[Any]:
        asked.append((wanted["fromBlock"], wanted["toBlock"]))
        return []

    with serving({"eth_blockNumber": lambda: hex(next(heads)), "eth_getLogs": logs}) as url:
        rpc = RpcClient(url)
        defender = Defender(rpc, Wallet(IdentityKey(b"\x11" * 32), rpc), JobFiles(tmp_path), {})
        assert [defender.step(lambda seconds: None) for _ in range(3)] == [0, 0, 0]
    assert asked == [("0x0", "0x4"), ("0x5", "0x6")], "a range beyond the head is an error of the chain's"
