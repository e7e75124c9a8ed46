"""The chain of vectors/rpc_compat crosses every fork from Homestead to BPO2: each of its headers must come out."""

import tarfile

import orjson
import pytest

from core.errors import BlockError
from core.genesis import Genesis
from node.executors import EXECUTORS
from tests.conformance.chain_file import read_blocks, replay
from tests.conformance.vectors import VECTORS, needs_vectors

ARCHIVE = VECTORS / "rpc_compat" / "rpc_compat.tar.gz"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE, "r:gz") as archive:
        contents = {name: archive.extractfile(f"rpc_compat/{name}") for name in ("genesis.json", "chain.rlp")}
        return {name: content.read() for name, content in contents.items() if content is not None}


@needs_vectors
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_every_root_of_the_chain(files: dict[str, bytes], executor_name: str) -> None:
    genesis = Genesis.from_geth(orjson.loads(files["genesis.json"]))
    executed = list(replay(genesis, read_blocks(files["chain.rlp"]), EXECUTORS[executor_name]()))
    assert [one.sealed.number for one in executed] == list(range(1, 55))
    assert executed[-1].state.root == executed[-1].sealed.block.header.state_root
    assert sum(len(one.outcome.receipts) for one in executed) > 150


@needs_vectors
def test_another_genesis_state_is_noticed(files: dict[str, bytes]) -> None:
    content = orjson.loads(files["genesis.json"])
    content["alloc"]["0x" + "11" * 20] = {"balance": "0x1"}
    with pytest.raises(BlockError, match="parent_hash"):
        list(replay(Genesis.from_geth(content), read_blocks(files["chain.rlp"]), EXECUTORS["reference"]()))
