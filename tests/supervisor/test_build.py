"""The build: what is up to date is not compiled again, and both architectures are small and static."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of an ELF header


def test_this_machines_program_is_static_and_small(build: ModuleType) -> None:
    name = build.own_architecture()
    path: Path = build.build([name])[name]
    data = path.read_bytes()
    assert len(data) < 176 << 10, "it is copied into a volume of each engine, and mapped by each helper process"
    assert os.access(path, os.X_OK)
    assert struct.unpack_from("<H", data, 18) == (MACHINES[name],)
    assert b"/ld-" not in data, "no interpreter: it runs in any image"


def test_what_is_up_to_date_is_not_built_again(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    name = build.own_architecture()
    path: Path = build.build([name])[name]
    before = path.stat()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(build, "BUILD_TIMEOUT", 0)
    build.build([name])
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_macs_and_linux_hosts_name_the_same_two_architectures(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, name in {"arm64": "aarch64", "AMD64": "x86_64", "aarch64": "aarch64", "x86_64": "x86_64"}.items():
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert build.own_architecture() == name
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(build.BuildError, match="riscv64"):
        build.own_architecture()


def test_a_missing_compiler_is_one_clear_sentence(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match="gcc is needed"):
        build.build_with_gcc(build.sources(), tmp_path / "out")


def test_a_fault_in_the_source_is_told(build: ModuleType, tmp_path: Path) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int main(void) { return nothing; }")
    with pytest.raises(build.BuildError, match="nothing"):
        build.build_with_gcc([broken], tmp_path / "out")


def test_the_command_line_builds_and_says_where(build: ModuleType) -> None:
    command = [sys.executable, ROOT / "server" / "supervisor" / "build.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert f"supervisor-{build.own_architecture()}" in done.stdout


def test_the_whole_program_compiles_with_the_sanitizers(build: ModuleType, tmp_path: Path) -> None:
    assert shutil.which("gcc"), "gcc is needed for the sanitized build"
    build.build_with_gcc(build.sources(), tmp_path / "supervisor")
    done = subprocess.run([tmp_path / "supervisor", "version"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"supervisor 3\n")
