"""Death at any instant: what was acknowledged is there, once; what was damaged is named."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StoreCorrupt, StoreError
from core.store import Replica
from tests.unit.core.store.chains import make_chain, make_genesis
from tests.unit.core.store.test_replica import check_block, check_state

GENESIS = make_genesis()
CHAIN = make_chain(GENESIS, 40, seed=2)
SEGMENT_BYTES_MAX = 30_000

WRITER = """
import sys
from pathlib import Path
from core.store import Replica
from tests.unit.core.store.chains import make_chain, make_genesis
genesis = make_genesis()
chain = make_chain(genesis, 40, seed=2)
print("ready", flush=True)
sys.stdin.readline()
with Replica.open(Path(sys.argv[1]), genesis, states_kept=8, segment_bytes_max=30_000, map_bytes=2**18) as replica:
    for made in chain[replica.head().number + 1:]:
        replica.append(made.sealed, made.receipts, made.difference)
        print(made.sealed.number, flush=True)
"""


def killed_writer(path: Path, delay_s: float) -> int:
    """Run the writer, kill -9 it so long after its start signal; the last number it acknowledged, -1 for none."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("\n")
        writer.stdin.flush()
        try:
            writer.wait(timeout=delay_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        lines = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    return int(lines[-1]) if lines else -1


def check_recovered(path: Path, acknowledged: int) -> int:
    """Open what a crash left; everything up to the head is whole. Returns the head's number."""
    with Replica.open(path, GENESIS, states_kept=8, segment_bytes_max=SEGMENT_BYTES_MAX) as replica:
        head = replica.head().number
        assert head >= acknowledged
        for made in CHAIN[: head + 1]:
            check_block(replica, made)
        for number in range(max(0, head - 7), head + 1):
            check_state(replica.state(number), CHAIN[number].state)
        return head


def kill_repeatedly(path: Path, seed: int, rounds: int) -> None:
    source = random.Random(seed)
    acknowledged = -1
    for _ in range(rounds):
        acknowledged = max(acknowledged, killed_writer(path, source.uniform(0.0, 0.5)))
        head = check_recovered(path, acknowledged)
        if head == CHAIN[-1].sealed.number:
            shutil.rmtree(path)
            acknowledged = -1


def test_kill_minus_nine_loses_nothing(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path / "replica", seed=3, rounds=3)


@pytest.mark.soak
def test_kill_minus_nine_loses_nothing_for_minutes(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path / "replica", seed=4, rounds=60)


def written(path: Path, blocks: int) -> Path:
    with Replica.open(path, GENESIS, segment_bytes_max=SEGMENT_BYTES_MAX) as replica:
        for made in CHAIN[replica.head().number + 1 : blocks]:
            replica.append(made.sealed, made.receipts, made.difference)
    return path


def without_checkpoint(source: Path, target: Path) -> Path:
    """A copy that has the log only: LMDB lags by everything."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "state")
    return target


def test_the_log_alone_gives_everything_back(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", len(CHAIN))
    assert len(list(whole.glob("blocks-*.log"))) > 2
    assert check_recovered(without_checkpoint(whole, tmp_path / "copy"), len(CHAIN) - 1) == len(CHAIN) - 1


def test_a_checkpoint_that_lags_is_caught_up(tmp_path: Path) -> None:
    early = written(tmp_path / "early", 13)
    late = tmp_path / "late"
    shutil.copytree(early, late)
    written(late, len(CHAIN))
    shutil.rmtree(late / "state")
    shutil.copytree(early / "state", late / "state")
    assert check_recovered(late, len(CHAIN) - 1) == len(CHAIN) - 1


def test_a_tail_torn_anywhere_is_cut(tmp_path: Path) -> None:
    five, six = written(tmp_path / "five", 5), written(tmp_path / "six", 6)
    start, end = ((folder / "blocks-000000000000.log").stat().st_size for folder in (five, six))
    boundaries = {start + 1, start + 4, start + 23, start + 24, start + 39, start + 40, start + 41, end - 1}
    cuts = sorted(boundaries | set(random.Random(5).sample(range(start + 1, end), 4)))
    whole = (six / "blocks-000000000000.log").read_bytes()
    for cut in cuts:
        for tail in (b"", b"\xee" * (end - cut)):  # a short file, and one whose last pages never arrived
            torn = tmp_path / "torn"
            shutil.copytree(five, torn)
            (torn / "blocks-000000000000.log").write_bytes(whole[:cut] + tail)
            assert check_recovered(torn, 4) == 4, f"cut at {cut}"
            shutil.rmtree(torn)


def test_after_a_cut_the_chain_goes_on(tmp_path: Path) -> None:
    folder = written(tmp_path / "replica", 5)
    with (folder / "blocks-000000000000.log").open("ab") as log:
        log.write(b"\xb1\x0c\xf0\x0d and no more")
    written(folder, 7)
    assert check_recovered(folder, 6) == 6


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 8)
    first = whole / "blocks-000000000000.log"
    content = first.read_bytes()
    with Replica.open(whole, GENESIS, segment_bytes_max=SEGMENT_BYTES_MAX) as replica:
        positions = [replica._index.entry(transaction, 3) for transaction in [replica._environment._env.begin()]]
    assert positions[0] is not None
    assert positions[0].position is not None
    offset = positions[0].position.offset
    damage = {offset, offset + 8, offset + 16, offset + 24, offset + 39, offset + 40, offset + 200}
    for at in sorted(damage | set(random.Random(6).sample(range(offset, offset + 1_000), 5))):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        if not 4 <= at - offset < 8:  # four bytes of a frame are padding; its checksum covers them all the same
            damaged = without_checkpoint(whole, tmp_path / "damaged")
            (damaged / first.name).write_bytes(flipped)
            with pytest.raises(StoreCorrupt, match=f"{first.name} is damaged at byte {offset}, in block 3"):
                Replica.open(damaged, GENESIS, segment_bytes_max=SEGMENT_BYTES_MAX)
            shutil.rmtree(damaged)


def test_damage_below_the_checkpoint_is_found_on_reading(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 8)
    first = whole / "blocks-000000000000.log"
    content = bytearray(first.read_bytes())
    content[400] ^= 1
    first.write_bytes(content)
    with Replica.open(whole, GENESIS, segment_bytes_max=SEGMENT_BYTES_MAX) as replica:
        with pytest.raises(StoreCorrupt, match=r"damaged at byte 80, in block 0"):
            replica.block(0)
        with pytest.raises(StoreCorrupt, match=r"damaged at byte 80, in block 0"):
            replica.verify()
        check_block(replica, CHAIN[7])


def test_an_acknowledged_last_record_is_never_cut(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 8)
    last = sorted(whole.glob("blocks-*.log"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreCorrupt, match="in block 7"):
        Replica.open(whole, GENESIS)
    last.write_bytes(content[:-1])
    with pytest.raises(StoreCorrupt, match="in block 7"):
        Replica.open(whole, GENESIS)
    last.unlink()
    with pytest.raises(StoreCorrupt, match="is missing"):
        Replica.open(whole, GENESIS)


def test_a_missing_last_segment_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", len(CHAIN))
    segments = sorted(whole.glob("blocks-*.log"))
    segments[-1].unlink()
    with pytest.raises(StoreCorrupt, match="ends before block"):
        Replica.open(whole, GENESIS)


def test_a_missing_middle_segment_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", len(CHAIN))
    shutil.rmtree(whole / "state")
    sorted(whole.glob("blocks-*.log"))[1].unlink()
    with pytest.raises(StoreCorrupt, match="expected block"):
        Replica.open(whole, GENESIS)


def test_death_while_a_segment_begins(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", 8)
    (whole / "blocks-000000000008.log").write_bytes(b"warp")
    assert check_recovered(whole, 7) == 7
    assert not (whole / "blocks-000000000008.log").exists()


def test_a_disk_that_refuses_leaves_the_chain_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(tmp_path / "whole", 8)
    made = CHAIN[8]
    with Replica.open(whole, GENESIS) as replica:
        with monkeypatch.context() as patched:

            def refuse(_descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr(os, "fdatasync", refuse)
            with pytest.raises(StoreError, match="No space left"):
                replica.append(made.sealed, made.receipts, made.difference)
        assert replica.head().number == 7
        with pytest.raises(StoreError, match="open the replica again"):
            replica.append(made.sealed, made.receipts, made.difference)
    assert check_recovered(whole, 7) == 7
