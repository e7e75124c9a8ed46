"""The model on disk: what a store keeps, what corruption is called, what an interrupted import leaves."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.worker.inference.float_checkpoints import random_checkpoint
from worker.inference.errors import ModelCorrupt, ModelNotFound, ModelUnsupported
from worker.inference.exact.convert import Recipe, import_checkpoint
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.specification import tensor_specs


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one model."""
    store = ModelStore(tmp_path_factory.mktemp("models"))
    import_checkpoint(random_checkpoint(), store, "one", Recipe())
    return store.folder


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(pristine, tmp_path / "models")
    return ModelStore(tmp_path / "models")


def test_a_model_opens_with_its_tensors_aligned_and_in_order(store: ModelStore) -> None:
    directory = store.find("one")
    model = ExactModel(directory)
    model.verify()
    assert directory.name == model.root.hex()
    assert model.specs == tensor_specs(model.header)
    manifest = json.loads((directory / "model.json").read_text())
    assert [entry["offset"] % 64 for entry in manifest["tensors"]] == [0] * len(model.specs)
    assert model.tensor("layers.1.down.weight").shape == (96, 160)
    assert not model.tensor("head.weight").flags.writeable
    assert manifest == json.loads(json.dumps(manifest, sort_keys=True))


def test_models_are_found_by_name_and_root(store: ModelStore) -> None:
    directory = store.find("one")
    assert (
        store.find(directory.name) == store.find("0x" + directory.name) == store.find(directory.name[:6]) == directory
    )
    for unknown in ("two", directory.name[:3], "ffff", ""):
        with pytest.raises(ModelNotFound):
            store.find(unknown)
    store.remove("one")
    assert store.models() == []
    assert list(store.folder.iterdir()) == []


def test_importing_twice_keeps_one(store: ModelStore) -> None:
    import_checkpoint(random_checkpoint(), store, "again", Recipe())
    assert len(store.models()) == 1


@pytest.mark.parametrize("tensor", ["embedding.weight", "layers.1.gate_up.weight", "layers.0.o.mantissa", "rope.sin"])
def test_one_flipped_bit_is_named(store: ModelStore, tensor: str) -> None:
    directory = store.find("one")
    manifest = json.loads((directory / "model.json").read_text())
    entry = next(entry for entry in manifest["tensors"] if entry["name"] == tensor)
    with (directory / "weights.bin").open("r+b") as file:
        file.seek(entry["offset"] + entry["bytes"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ModelCorrupt, match=f"tensor {tensor} does not match"):
        ExactModel(directory).verify()


def rewrite(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((directory / "model.json").read_text())
    change(manifest)
    (directory / "model.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.update(root="00" * 32), ModelCorrupt, "root"),
        (lambda m: m.update(format="other"), ModelCorrupt, "not the manifest"),
        (lambda m: m.update(specification=2), ModelUnsupported, "specification 2"),
        (lambda m: m["header"].update(layers=1), ModelCorrupt, "tensors are not those"),
        (lambda m: m["header"].update(layers="2"), ModelCorrupt, "not an integer"),
        (lambda m: m["header"].update(layers=True), ModelCorrupt, "not an integer"),
        (lambda m: m["header"].update(model_width=10**9), ModelUnsupported, "model_width"),
        (lambda m: m["header"].pop("heads"), ModelCorrupt, "lacks fields"),
        (lambda m: m["header"].update(end_tokens=[2]), ModelCorrupt, "root"),
        (lambda m: m.pop("header"), ModelCorrupt, "lacks fields"),
        (lambda m: m.pop("tensors"), ModelCorrupt, "malformed"),
        (lambda m: m.update(tensors=[{"name": 1, "root": "xyz"}]), ModelCorrupt, "malformed"),
        (lambda m: m["tensors"].reverse(), ModelCorrupt, "tensors are not those"),
        (lambda m: m["tensors"][0].update(root="11" * 32), ModelCorrupt, "root"),
    ],
)
def test_a_manifest_is_not_believed(
    store: ModelStore, change: Callable[[dict[str, Any]], Any], error: type[Exception], message: str
) -> None:
    directory = store.find("one")
    rewrite(directory, change)
    with pytest.raises(error, match=message):
        ExactModel(directory)


def test_other_damage_is_typed(store: ModelStore) -> None:
    directory = store.find("one")
    (directory / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ModelCorrupt, match="small files"):
        ExactModel(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json is missing"):
        ExactModel(directory)
    (directory / "model.json").write_text("{")
    with pytest.raises(ModelCorrupt, match="not JSON"):
        ExactModel(directory)
    (directory / "model.json").unlink()
    with pytest.raises(ModelNotFound):
        ExactModel(directory)


def test_a_truncated_weights_file_is_refused(store: ModelStore) -> None:
    directory = store.find("one")
    os.truncate(directory / "weights.bin", 1000)
    with pytest.raises(ModelCorrupt, match=r"weights\.bin has 1000 bytes"):
        ExactModel(directory)


def test_scales_that_could_overflow_are_refused_at_opening(store: ModelStore) -> None:
    """Even with digests that match: the bounds are part of opening, since arithmetic relies on them."""
    directory = store.find("one")
    model = ExactModel(directory)
    offset = next(p.offset for name, p in model._placed.items() if name == "layers.0.down.exponent")
    with (directory / "weights.bin").open("r+b") as file:
        file.seek(offset)
        file.write(np.int8(5).tobytes())
    with pytest.raises(ModelCorrupt, match=r"scales of layers\.0\.down"):
        ExactModel(directory)


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    del checkpoint.tensors["norm.weight"]
    store = ModelStore(tmp_path)
    with pytest.raises(KeyError):
        import_checkpoint(checkpoint, store, "one", Recipe())
    assert list(tmp_path.iterdir()) == []


KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from tests.unit.worker.inference.float_checkpoints import random_checkpoint
from worker.inference.exact.convert import Recipe, import_checkpoint
from worker.inference.exact.model import ModelStore

def die(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

import_checkpoint(random_checkpoint(), ModelStore(Path(sys.argv[1])), "one", Recipe(), die)
"""


def test_what_a_killed_import_left_is_gone_after_the_next(tmp_path: Path) -> None:
    root = Path(__file__).parents[4]
    killed = subprocess.run([sys.executable, "-c", KILLED_IMPORT, str(tmp_path)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    store = ModelStore(tmp_path)
    assert store.models() == []
    import_checkpoint(random_checkpoint(), store, "one", Recipe())
    assert [path.name for path in tmp_path.iterdir()] == [store.find("one").name]


def test_an_import_in_progress_is_left_alone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(store.importing())
        import_checkpoint(random_checkpoint(), store, "one", Recipe())
        assert work.is_dir()
        (work / "model.json").write_bytes((store.find("one") / "model.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == [store.find("one").name]
    ExactModel(store.find("one")).verify()
