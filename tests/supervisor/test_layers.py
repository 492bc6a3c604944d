"""The supervisor's C files: none needs another that needs it, and each folder stands on those below it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "c_layers.py"

#: A program that has no fault: the entry, and one module in each of two folders.
SOUND = {
    "main.c": '#include "init/loop.h"\nint main(void) { return loop(); }\n',
    "init/loop.h": "int loop(void);\n",
    "init/loop.c": '#include "init/loop.h"\n#include "base/bytes.h"\nint loop(void) { return bytes(); }\n',
    "base/bytes.h": "int bytes(void);\n",
    "base/bytes.c": '#include "base/bytes.h"\nint bytes(void) { return 0; }\n',
}


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    """`scripts/c_layers.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("c_layers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(layers: ModuleType, root: Path, changes: dict[str, str]) -> list[str]:
    """What the check finds in the sound program with some files changed or added."""
    for name, text in (SOUND | changes).items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return list(layers.check(root))


def test_the_supervisor_has_no_circle_and_its_folders_stand_in_layers() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({}, [], id="nothing is wrong"),
        pytest.param(
            {
                "init/loop.h": "int loop(void);\nint again(void);\n",
                "init/loop.c": '#include "init/loop.h"\n#include "base/bytes.h"\n#include "init/turn.h"\n'
                "int again(void) { return 0; }\nint loop(void) { return turn() + bytes(); }\n",
                "init/turn.h": "int turn(void);\n",
                "init/turn.c": '#include "init/turn.h"\n#include "init/loop.h"\nint turn(void) { return again(); }\n',
            },
            ["a circle: init/loop needs init/turn needs init/loop."],
            id="a circle of two files",
        ),
        pytest.param(
            {
                "base/bytes.c": '#include "base/bytes.h"\n#include "init/turn.h"\nint bytes(void) { return turn(); }\n',
                "init/turn.h": "int turn(void);\n",
                "init/turn.c": '#include "init/turn.h"\nint turn(void) { return 0; }\n',
            },
            ["base/bytes: needs init/turn, and 'init' is not below 'base'."],
            id="a folder that reaches up",
        ),
        pytest.param(
            {"base/bytes.c": '#include "base/bytes.h"\nint loop(void);\nint bytes(void) { return loop(); }\n'},
            ["base/bytes: uses loop and does not include init/loop.h, which owns it."],
            id="a call that no include shows",
        ),
        pytest.param(
            {"base/bytes.c": '#include "base/bytes.h"\nint hidden;\nint bytes(void) { return hidden; }\n'},
            ["base/bytes: hidden is not in base/bytes.h; make it static."],
            id="a name that only its own file knows",
        ),
        pytest.param(
            {"base/idle.c": "static int idle;\nstatic int *unused(void) { return &idle; }\n"},
            ["base/idle.c: has no header; declare in base/idle.h what others may call."],
            id="a module without a header",
        ),
        pytest.param(
            {"loose/x.h": "int x(void);\n", "loose/x.c": '#include "loose/x.h"\nint x(void) { return 0; }\n'},
            ["loose/x: the folder 'loose' is in no layer; name it in LAYERS."],
            id="a folder that nobody named",
        ),
    ],
)
def test_each_fault_is_one_sentence(
    layers: ModuleType, tmp_path: Path, changes: dict[str, str], said: list[str]
) -> None:
    assert faults(layers, tmp_path, changes) == said


def test_an_include_before_a_files_own_header_is_a_fault(layers: ModuleType, tmp_path: Path) -> None:
    turned = '#include "base/bytes.h"\n#include "init/loop.h"\nint loop(void) { return bytes(); }\n'
    (fault,) = faults(layers, tmp_path, {"init/loop.c": turned})
    assert fault.startswith("init/loop.c: includes another header before its own")


def test_a_file_that_does_not_compile_is_one_clear_finding(tmp_path: Path) -> None:
    broken = tmp_path / "server" / "supervisor" / "src" / "main.c"
    broken.parent.mkdir(parents=True)
    broken.write_text("int main(void) { return nothing; }\n")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "does not compile" in done.stdout
    assert "nothing" in done.stdout
