"""Compiling ahead: which sources, under which names, and what is said where it cannot be done."""

from pathlib import Path

import pytest

import core.gpu
from core.build_kernels import kernel_sources, main
from core.native import SOURCE_ROOT


def test_every_file_with_an_entry_point_is_a_source() -> None:
    everywhere = {path for path in SOURCE_ROOT.glob("[a-z]*/**/*.cu") if "__global__" in path.read_text()}
    found = {path for path in everywhere if path.relative_to(SOURCE_ROOT).parts[0] != "build"}
    assert found <= set(kernel_sources())
    assert {path.name for path in kernel_sources()} >= {"kernel.cu", "kernel_heavy.cu", "crypto.cu"}


def test_the_compiler_gets_source_and_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core.gpu, "CUBIN_DIR", tmp_path / "cubin")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nfor last; do :; done\ntouch "$last"\n')
    nvcc.chmod(0o755)
    source = SOURCE_ROOT / "worker/evm/native/kernel.cu"
    assert main([str(source), "--architectures", "sm_80", "sm_120", "--nvcc", str(nvcc)]) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["-arch=sm_80" in calls[0], "-arch=sm_120" in calls[1], len(calls)] == [True, True, 2]
    assert {path.name.split("-")[1] for path in (tmp_path / "cubin").iterdir()} == {"sm_80", "sm_120"}
    assert "kernel-sm_120-" in capsys.readouterr().out


def test_without_a_compiler_it_says_what_happens_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core.gpu, "CUBIN_DIR", tmp_path)
    assert main(["--nvcc", "no-such-nvcc"]) == 1
    assert "compiled at first use" in capsys.readouterr().err
