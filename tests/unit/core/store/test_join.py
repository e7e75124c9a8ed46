"""A replica that begins in the middle of the chain with a peer's state."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.block import header_hash
from core.chain import SealedBlock
from core.errors import BlockError, StatePruned, StoreCorrupt, StoreError
from core.genesis import Genesis
from core.memory_state import MemoryState
from core.state import AccountChange, StateDifference
from core.store import Replica
from core.store.index import BlockIndex
from core.store.log import BlockLog
from core.store.state import StateTables
from tests.unit.core.store.chains import ADDRESSES, make_chain, make_genesis
from tests.unit.core.store.test_replica import check_block, check_state, filled

GENESIS = make_genesis()
CHAIN = make_chain(GENESIS, 40, seed=7)
BASE = 30


def joined(
    path: Path, peer: Replica, chunks: list[StateDifference] | None = None, genesis: Genesis = GENESIS
) -> Replica:
    base = CHAIN[BASE]
    source = peer.state(BASE).chunks(600) if chunks is None else chunks
    return Replica.join(path, genesis, base.sealed, base.receipts, peer.ancestors(BASE), source)


def test_it_has_the_peers_state_and_goes_on(tmp_path: Path) -> None:
    with filled(tmp_path / "peer", CHAIN) as peer:
        assert len(list(peer.state(BASE).chunks(600))) > 5
        assert len(list(peer.snapshot(BASE))) == 1
        joined(tmp_path / "new", peer).close()
    with Replica.open(tmp_path / "new", GENESIS) as replica:
        check_state(replica.state(BASE), CHAIN[BASE].state)
        assert replica.block_hashes(BASE + 1) == tuple(made.sealed.hash for made in CHAIN[: BASE + 1])
        assert len(replica.ancestors(BASE)) == BASE
        assert replica.block(BASE - 1) is None
        with pytest.raises(StatePruned):
            replica.state(BASE - 1)
        for made in CHAIN[BASE + 1 :]:
            replica.append(made.sealed, made.receipts, made.difference)
        assert replica.verify() == len(CHAIN) - BASE
    with Replica.open(tmp_path / "new", GENESIS) as replica:
        for made in CHAIN[BASE + 1 :]:
            check_block(replica, made)
            check_state(replica.state(made.sealed.number), made.state)


def test_a_chunk_larger_than_its_limit_is_split(tmp_path: Path) -> None:
    storage = {slot: slot + 1 for slot in range(500)}
    with filled(tmp_path / "peer", CHAIN[: BASE + 1]) as peer:
        state = peer.state(BASE)
        big = StateDifference.from_changes(
            {ADDRESSES[8]: AccountChange(state.account(ADDRESSES[8]) or CHAIN[0].state.account(ADDRESSES[8]), storage)}
        )
        expected = CHAIN[BASE].state.apply(big)
        header = replace(
            CHAIN[BASE].sealed.block.header,
            parent_hash=CHAIN[BASE].sealed.hash,
            number=BASE + 1,
            state_root=expected.root,
        )
        sealed = SealedBlock(header_hash(header), replace(CHAIN[BASE].sealed.block, header=header))
        peer.append(sealed, CHAIN[BASE].receipts, big)
        chunks = list(peer.state(BASE + 1).chunks(4_096))
        assert max(len(chunk.to_bytes()) for chunk in chunks) < 8_192
        state_again = MemoryState()
        for chunk in chunks:
            state_again = state_again.apply(chunk)
        assert state_again.root == expected.root


def test_a_lying_peer_leaves_nothing_behind(tmp_path: Path) -> None:
    with filled(tmp_path / "peer", CHAIN) as peer:
        chunks = list(peer.state(BASE).chunks(600))
        base = CHAIN[BASE]
        with pytest.raises(BlockError, match="state root"):
            joined(tmp_path / "new", peer, chunks[:-1])
        with pytest.raises(BlockError, match="state root"):
            joined(tmp_path / "new", peer, [])
        ancestors = peer.ancestors(BASE)
        with pytest.raises(BlockError, match="not a chain"):
            Replica.join(tmp_path / "new", GENESIS, base.sealed, base.receipts, (ancestors[0],) * BASE, chunks)
        with pytest.raises(BlockError, match="too few"):
            Replica.join(tmp_path / "new", GENESIS, base.sealed, base.receipts, (), chunks)
        wrong = next(made.receipts for made in CHAIN if made.receipts != base.receipts)
        with pytest.raises(BlockError, match="receipts"):
            Replica.join(tmp_path / "new", GENESIS, base.sealed, wrong, peer.ancestors(BASE), chunks)
        replica = joined(tmp_path / "new", peer, chunks)
        check_state(replica.state(BASE), base.state)
        with pytest.raises(StoreError, match="another process"):
            joined(tmp_path / "new", peer, chunks)
        replica.close()
        with pytest.raises(StoreError, match="already a replica"):
            joined(tmp_path / "new", peer, chunks)


def test_without_its_state_it_asks_to_join_again(tmp_path: Path) -> None:
    with filled(tmp_path / "peer", CHAIN) as peer:
        joined(tmp_path / "new", peer).close()
    for file in (tmp_path / "new" / "state").iterdir():
        file.unlink()
    with pytest.raises(StoreCorrupt, match="join again"):
        Replica.open(tmp_path / "new", GENESIS)


def test_death_while_it_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Death

    with filled(tmp_path / "peer", CHAIN) as peer:
        for owner, step in ((StateTables, "set_oldest"), (BlockLog, "append"), (BlockIndex, "add")):
            path = tmp_path / step
            with monkeypatch.context() as patched:
                patched.setattr(owner, step, die)
                with pytest.raises(Death):
                    joined(path, peer)
            if step != "add":  # nothing is in the log: the folder serves for another attempt
                joined(path, peer).close()
            with Replica.open(path, GENESIS) as replica:
                check_state(replica.state(BASE), CHAIN[BASE].state)
                assert len(replica.block_hashes(BASE + 1)) == BASE + 1


def test_an_unfinished_join_is_no_obstacle_to_beginning_from_genesis(tmp_path: Path) -> None:
    with filled(tmp_path / "peer", CHAIN) as peer:
        chunks = list(peer.state(BASE).chunks(600))
        with pytest.raises(BlockError):
            joined(tmp_path / "new", peer, chunks[:-1])
    with filled(tmp_path / "new", CHAIN) as replica:
        check_state(replica.state(len(CHAIN) - 1), CHAIN[-1].state)
