"""The replica: what went in comes out, in every version, process and after every restart."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from core.block import header_hash
from core.chain import LogFilter, LogRecord, SealedBlock, TransactionLocation
from core.errors import BlockError, StatePruned, StoreError, StoreMismatch
from core.memory_state import MemoryState
from core.state_trie import ProvableState, verify_account_proof
from core.store import Replica, ReplicaReader
from tests.unit.core.store.chains import ADDRESSES, TOPICS, MadeBlock, make_chain, make_genesis

GENESIS = make_genesis()
CHAIN = make_chain(GENESIS, 60, seed=1)


def filled(path: Path, chain: list[MadeBlock] = CHAIN, **settings: int | None) -> Replica:
    replica = Replica.open(path, GENESIS, **settings)  # type: ignore[arg-type]
    for made in chain[replica.head().number + 1 :]:
        replica.append(made.sealed, made.receipts, made.difference)
    return replica


def check_state(state: ProvableState, expected: MemoryState) -> None:
    assert state.root == expected.root
    for address in ADDRESSES:
        account = state.account(address)
        assert account == expected.account(address)
        if account is not None:
            assert state.code(account.code_hash) == expected.code(account.code_hash)
        slots = [0, 1, 2, 5, 11, 2**255]
        assert [state.storage(address, slot) for slot in slots] == [expected.storage(address, slot) for slot in slots]
        proof = state.proof(address, slots)
        verify_account_proof(expected.root, proof)
        assert proof.account == account


def check_block(reader: ReplicaReader, made: MadeBlock) -> None:
    number = made.sealed.number
    found = reader.block(number)
    assert found is not None
    assert (found.hash, found.block.header, found.block.transactions, found.block.withdrawals) == (
        made.sealed.hash,
        made.sealed.block.header,
        made.sealed.block.transactions,
        made.sealed.block.withdrawals,
    )
    assert reader.receipts(number) == made.receipts
    assert reader.difference(number) == made.difference
    by_hash = reader.block_by_hash(made.sealed.hash)
    assert by_hash is not None
    assert by_hash.number == number
    for row, transaction_hash in enumerate(made.sealed.block.transactions.hash):
        assert reader.find_transaction(transaction_hash.tobytes()) == TransactionLocation(number, row)


def test_every_block_and_state_is_there(tmp_path: Path) -> None:
    with filled(tmp_path, states_kept=None) as replica:
        assert replica.head().hash == CHAIN[-1].sealed.hash
        for made in CHAIN:
            check_block(replica, made)
            check_state(replica.state(made.sealed.number), made.state)
        assert replica.verify() == len(CHAIN)
        assert replica.block(len(CHAIN)) is None
        assert replica.block(-1) is None
        assert replica.block_by_hash(bytes(32)) is None
        assert replica.find_transaction(bytes(32)) is None
        assert replica.block_hashes(len(CHAIN)) == tuple(made.sealed.hash for made in CHAIN)


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    for stop in (1, 7, 30, len(CHAIN)):
        with filled(tmp_path, CHAIN[:stop]) as replica:
            assert replica.head().number == stop - 1
            check_state(replica.state(stop - 1), CHAIN[stop - 1].state)
    with Replica.open(tmp_path, GENESIS) as replica:
        for made in CHAIN:
            check_block(replica, made)


def test_old_states_are_dropped_and_say_so(tmp_path: Path) -> None:
    with filled(tmp_path, CHAIN[:20], states_kept=5) as replica:
        held = replica.state(17)
        for made in CHAIN[20:30]:
            replica.append(made.sealed, made.receipts, made.difference)
        for number in range(25, 30):
            check_state(replica.state(number), CHAIN[number].state)
        with pytest.raises(StatePruned, match="oldest is that of 25"):
            replica.state(24)
        with pytest.raises(StatePruned):
            held.account(ADDRESSES[0])
        with pytest.raises(StatePruned):
            held.root_after(CHAIN[18].difference)
        with replica._environment.read() as transaction:
            stored = transaction.stat(replica._environment.table("nodes")._handle)["entries"]
    with (
        filled(tmp_path / "archive", CHAIN[:30], states_kept=None) as archive,
        archive._environment.read() as transaction,
    ):
        assert stored < transaction.stat(archive._environment.table("nodes")._handle)["entries"]


def test_pruned_to_one_state_nothing_superfluous_is_left(tmp_path: Path) -> None:
    with filled(tmp_path, states_kept=1) as replica:
        state = CHAIN[-1].state
        check_state(replica.state(replica.head().number), state)
        with replica._environment.read() as transaction:
            counts = {
                name: transaction.stat(replica._environment.table(name)._handle)["entries"]
                for name in ("accounts", "slots", "journal")
            }
    assert counts == {
        "accounts": len(state.accounts),
        "slots": sum(len(one.storage) for one in state.accounts.values()),
        "journal": 0,
    }


def test_logs_are_those_that_a_scan_finds(tmp_path: Path) -> None:
    everything = [
        LogRecord(log, made.sealed.number, row, index)
        for made in CHAIN
        for index, (row, log) in enumerate(
            (row, log) for row in range(len(made.receipts)) for log in made.receipts.logs(row)
        )
    ]
    assert len(everything) > 50
    with filled(tmp_path) as replica:
        assert list(replica.logs(LogFilter(0, 10**9))) == everything
        for address, topic in zip(ADDRESSES, TOPICS * 4, strict=True):
            found = list(replica.logs(LogFilter(3, 50, frozenset({address}))))
            assert found == [one for one in everything if 3 <= one.number <= 50 and one.log.address == address]
            found = list(replica.logs(LogFilter(0, 60, topics=[frozenset(), frozenset({topic, TOPICS[0]})])))
            assert found == [
                one for one in everything if len(one.log.topics) > 1 and one.log.topics[1] in (topic, TOPICS[0])
            ]


def test_a_block_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    with filled(tmp_path, CHAIN[:5]) as replica:
        made = CHAIN[5]
        with pytest.raises(BlockError, match="does not follow"):
            replica.append(CHAIN[6].sealed, CHAIN[6].receipts, CHAIN[6].difference)
        with pytest.raises(BlockError, match="state root"):
            replica.append(made.sealed, made.receipts, CHAIN[6].difference)
        other = replace(made.sealed.block.header, parent_hash=bytes(32))
        with pytest.raises(BlockError, match="does not follow"):
            replica.append(
                SealedBlock(header_hash(other), replace(made.sealed.block, header=other)),
                made.receipts,
                made.difference,
            )
        assert replica.head().number == 4
        replica.append(made.sealed, made.receipts, made.difference)
        check_block(replica, made)


def test_data_of_another_chain_or_version_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, CHAIN[:3]).close()
    other = make_genesis(chain_id=4242)
    with pytest.raises(StoreMismatch, match="belongs to chain 1337"):
        Replica.open(tmp_path, other)
    with pytest.raises(StoreMismatch):
        ReplicaReader.open_read_only(tmp_path, other)
    with Replica.open(tmp_path, GENESIS) as replica:
        assert replica.head().number == 2


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with filled(tmp_path, CHAIN[:3]), pytest.raises(StoreError, match="another process writes"):
        Replica.open(tmp_path, GENESIS)
    Replica.open(tmp_path, GENESIS).close()


def test_another_process_reads_while_this_one_writes(tmp_path: Path) -> None:
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from core.store import ReplicaReader
from tests.unit.core.store.chains import make_genesis
with ReplicaReader.open_read_only(Path(sys.argv[1]), make_genesis()) as reader, ThreadPoolExecutor(3) as pool:
    print("ready", flush=True)
    for line in sys.stdin:
        head, *others = pool.map(lambda _: reader.head(), range(3))
        assert all(other.hash == head.hash for other in others)
        print(head.number, reader.state(head.number).root.hex(), len(reader.receipts(head.number)), flush=True)
"""
    # A small map, so that the writer grows it under the reader.
    with (
        filled(tmp_path, CHAIN[:2], map_bytes=2**18, segment_bytes_max=20_000) as replica,
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader,
    ):
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for made in CHAIN[2:]:
            replica.append(made.sealed, made.receipts, made.difference)
            reader.stdin.write("\n")
            reader.stdin.flush()
            number, root, receipts = reader.stdout.readline().split()
            assert (int(number), bytes.fromhex(root), int(receipts)) == (
                made.sealed.number,
                made.state.root,
                len(made.receipts),
            )
        reader.stdin.close()
        assert reader.wait() == 0
        assert replica._environment._env.info()["map_size"] > 2**18


def test_threads_read_while_the_map_grows_under_them(tmp_path: Path) -> None:
    with (
        filled(tmp_path, CHAIN[:2], map_bytes=2**18, states_kept=None) as replica,
        ThreadPoolExecutor(3) as pool,
    ):
        finished = Event()

        def read(reader: ReplicaReader) -> int:
            rounds = 0
            while not finished.is_set():
                made = CHAIN[reader.head().number]
                assert reader.state(made.sealed.number).account(ADDRESSES[0]) == made.state.account(ADDRESSES[0])
                rounds += 1
            return rounds

        readers = [pool.submit(read, replica) for _ in range(3)]
        try:
            for made in CHAIN[2:]:
                replica.append(made.sealed, made.receipts, made.difference)
        finally:
            finished.set()
        assert all(reader.result() > 0 for reader in readers)
        assert replica._environment._env.info()["map_size"] > 2**18


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no replica"):
        ReplicaReader.open_read_only(tmp_path / "nowhere", GENESIS)
