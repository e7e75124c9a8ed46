"""Kernels and the native CPU library come from the same headers, or nothing is loaded. Runs without a GPU."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

import core.gpu
from core.build_kernels import architectures_of, kernel_sources
from core.errors import SourcesDiffer
from core.gpu import ARCHITECTURES, Device, check_same_sources
from core.native import SOURCE_ROOT, built_from

KERNEL = SOURCE_ROOT / "worker/evm/native/kernel.cu"
LIBRARIES = {"core": "warpgrid_core", "evm": "warpgrid_evm", "inference": "warpgrid_exact"}


def library_of(source: Path) -> str:
    room, subroom, *_ = source.relative_to(SOURCE_ROOT).parts
    return LIBRARIES[room if room == "core" else subroom]


@pytest.mark.parametrize("source", kernel_sources(), ids=lambda path: path.name)
def test_every_kernel_fits_the_library_that_was_built(source: Path) -> None:
    check_same_sources(source, library_of(source), built_from(library_of(source)))


def test_cmake_and_python_hash_alike() -> None:
    built = built_from("warpgrid_evm")
    assert {"core/native/platform.hpp", "worker/evm/native/types.hpp", "worker/evm/native/opcodes.def"} <= built.keys()
    for path, digest in built.items():
        assert digest == hashlib.sha256((SOURCE_ROOT / path).read_bytes()).hexdigest(), path


@pytest.mark.parametrize("path", ["worker/evm/native/types.hpp", "core/native/crypto/keccak.hpp"])
def test_another_header_is_refused_by_name(path: str) -> None:
    built = dict(built_from("warpgrid_evm")) | {path: "0" * 64}
    with pytest.raises(SourcesDiffer, match=rf"warpgrid_evm .*kernel\.cu \({path}\).*make native.*make cubins"):
        check_same_sources(KERNEL, "warpgrid_evm", built)


def test_a_header_that_the_kernel_does_not_include_is_no_difference() -> None:
    built = dict(built_from("warpgrid_evm")) | {"worker/evm/native/trace_stream.hpp": "0" * 64}
    check_same_sources(KERNEL, "warpgrid_evm", built)


def test_a_library_that_does_not_tell_is_refused() -> None:
    with pytest.raises(SourcesDiffer, match="make native"):
        check_same_sources(KERNEL, "warpgrid_evm", {})


def test_a_device_loads_no_kernels_beside_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    device = Device(0, tmp_path)
    vars(device)["cupy"] = SimpleNamespace(RawModule=lambda path: loaded.append(path))  # where the property caches it
    vars(device)["architecture"] = "sm_90"
    cubin = tmp_path / core.gpu._cubin_name(KERNEL, "sm_90", ())
    cubin.touch()
    monkeypatch.setattr(core.gpu, "CUBIN_DIR", tmp_path)
    device.kernels(KERNEL, library="warpgrid_evm")
    assert loaded == [str(cubin)]
    monkeypatch.setattr(core.gpu, "built_from", lambda name: {"core/native/platform.hpp": "0" * 64})
    with pytest.raises(SourcesDiffer):
        Device.kernels(_fresh(device, tmp_path), KERNEL, library="warpgrid_evm")
    assert len(loaded) == 1


def _fresh(device: Device, cache_dir: Path) -> Device:
    """The same device, with nothing loaded."""
    fresh = Device(device.index, cache_dir)
    vars(fresh).update({name: vars(device)[name] for name in ("cupy", "architecture")})
    return fresh


def test_a_source_says_which_gpus_alone_can_run_it() -> None:
    only = {source.name: architectures_of(source) for source in kernel_sources()}
    assert only["exact.cu"] == ["sm_90a"]
    assert only["kernel.cu"] == list(ARCHITECTURES)
