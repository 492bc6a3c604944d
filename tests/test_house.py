"""`scripts/house.py` finds what is too long, too wide or named twice, and exceptions that are not needed any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Seconds; it takes a tenth of one on a small tree, and three on the whole project.
TIMEOUT = 60

PYTHON = "server/taskcell/one.py"
OTHER = "server/taskcell/two.py"
C = "server/supervisor/src/one.c"


def statements(count: int, indent: str = "    ") -> str:
    return "".join(f"{indent}x = {number};\n" for number in range(count))


def function(lines: int, name: str = "long") -> str:
    """A function with that many lines of code, beside a docstring, comments and empty lines."""
    words = '    """Says.\n\n    More.\n    """\n\n    # A comment.\n'
    return f"def {name}():\n{words}{statements(lines - 1)}"


def c_function(lines: int) -> str:
    words = '    /* A comment\n       of two lines */\n    // and one with a }\n\n    const char *text = "/*";\n'
    return f"static int\nlong_one(int a,\n         int b) {{\n{words}{statements(lines - 5)}}}\n"


def found(root: Path, files: dict[str, str], house: str = "") -> list[str]:
    """What is found in a tree of these files, one line each."""
    for name, text in {"pyproject.toml": house, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    argv = [sys.executable, str(ROOT / "scripts" / "house.py"), str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == (1 if lines else 0), done.stderr
    return lines


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_what_keeps_the_limits_is_not_found(tmp_path: Path) -> None:
    files = {
        PYTHON: function(40) + "y = 1\n" * 250,
        "tests/test_one.py": "x = 1\n" * 650,
        C: c_function(40),
        "docs/page.md": "a" * 120 + "\n",
    }
    assert found(tmp_path, files) == []


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        (PYTHON, "x = 1\n" * 301, f"{PYTHON}: 301 lines, and 300 are the most; split it."),
        (C, "int x;\n" * 301, f"{C}: 301 lines, and 300 are the most; split it."),
        ("scripts/one.py", "x = 1\n" * 301, "scripts/one.py: 301 lines, and 300 are the most; split it."),
        ("tests/test_one.py", "x = 1\n" * 651, "tests/test_one.py: 651 lines, and 650 are the most; split it."),
        (PYTHON, function(41), f"{PYTHON}:long: 41 lines, and 40 are the most; split it."),
        (PYTHON, "async " + function(41), f"{PYTHON}:long: 41 lines, and 40 are the most; split it."),
        ("tests/test_one.py", function(41), "tests/test_one.py:long: 41 lines, and 40 are the most; split it."),
        (C, c_function(41), f"{C}:long_one: 41 lines, and 40 are the most; split it."),
    ],
)
def test_what_is_too_long_is_found(tmp_path: Path, name: str, text: str, finding: str) -> None:
    assert found(tmp_path, {name: text}) == [finding]


def test_a_method_is_named_with_its_class(tmp_path: Path) -> None:
    method = "".join(f"    {line}\n" for line in function(41).splitlines())
    assert found(tmp_path, {PYTHON: f"class Box:\n{method}"}) == [
        f"{PYTHON}:Box.long: 41 lines, and 40 are the most; split it."
    ]


# --- exceptions ----------------------------------------------------------------------------------------------------


def test_an_exception_lets_a_function_have_just_its_size(tmp_path: Path) -> None:
    assert found(tmp_path, {PYTHON: function(45)}, f'[tool.house.longer]\n"{PYTHON}:long" = 45\n') == []


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        (46, "46 lines, and its exception allows 45; an exception may only shrink."),
        (44, "44 lines now; write 44 for 45 in [tool.house.longer]."),
        (40, "40 lines, so its exception is not needed; take it out of [tool.house.longer]."),
    ],
)
def test_an_exception_may_only_shrink(tmp_path: Path, lines: int, finding: str) -> None:
    house = f'[tool.house.longer]\n"{PYTHON}:long" = 45\n'
    assert found(tmp_path, {PYTHON: function(lines)}, house) == [f"{PYTHON}:long: {finding}"]


def test_an_exception_for_what_does_not_exist_is_found(tmp_path: Path) -> None:
    house = '[tool.house.longer]\n"server/gone.py" = 301\n[tool.house.alike]\nGone = "It was there."\n'
    assert found(tmp_path, {}, house) == [
        "server/gone.py: does not exist; take it out of [tool.house.longer].",
        "Gone: no two modules share it, so its exception is not needed; take it out of [tool.house.alike].",
    ]


# --- width ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("README.md", f"# Title\n\n{'word ' * 25}\n", 3),
        ("docs/decisions/0001-one.md", f"- item\n  {'word ' * 25}\n", 2),
        ("docs/page.md", f"> {'word ' * 25}\n", 1),
        (C, f"/* {'word ' * 25} */\n", 1),
        ("scripts/one.sh", f"true\n# {'word ' * 25}\n", 2),
        ("Makefile", f"# {'word ' * 25}\n", 1),
    ],
)
def test_prose_that_is_too_wide_is_found(tmp_path: Path, name: str, text: str, line: int) -> None:
    [finding] = found(tmp_path, {name: text})
    assert finding.startswith(f"{name}:{line}: ")
    assert finding.endswith(" characters, and 120 are the most.")


def test_code_tables_and_the_targets_of_links_may_be_wider(tmp_path: Path) -> None:
    wide = "word " * 30
    page = f"```\n{wide}\n```\n\n| a |\n| --- |\n| {wide} |\n\nSee [this]({'x' * 120}).\n"
    assert found(tmp_path, {"docs/page.md": page, "scripts/one.sh": f"echo {wide}\n"}) == []


def test_ruff_holds_the_width_of_docstrings_and_comments(tmp_path: Path) -> None:
    """Which is why house.py does not look at them."""
    wide = "word " * 25
    path = tmp_path / "one.py"
    path.write_text(f'"""{wide}"""\n# {wide}\n')
    argv = [str(Path(sys.executable).parent / "ruff"), "check", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*argv, "--output-format", "concise", str(path)], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert [line.split(":")[1] for line in done.stdout.splitlines() if "E501" in line] == ["1", "2"]


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("class Listing: ...\n", "class Listing: ...\n"),
        ("class Listing: ...\n", "Listing = int\n"),
        ("class Listing: ...\n", "def Listing(): ...\n"),
        ("Listing = 0.1\n", "Listing: float = 5.0\n"),
        ("def Listing(): ...\n", "from taskcell.one import Listing as other\ndef Listing(): ...\n"),
    ],
)
def test_a_public_name_in_two_modules_is_found(tmp_path: Path, one: str, two: str) -> None:
    user = "from taskcell.one import Listing\n"
    files = {PYTHON: one, OTHER: two, "server/taskcell/user.py": user}
    finding = "Listing: a public name in one.py, two.py; give all but one another name."
    assert found(tmp_path, files) == [finding]
    assert found(tmp_path, files, '[tool.house.alike]\nListing = "Both are."\n') == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("def load(): ...\n", "from taskcell import one\ndef load(): ...\none.load()\n"),
        ("class _Private: ...\n", "class _Private: ...\n"),
        ("log = get_logger(__name__)\n", "log = get_logger(__name__)\n"),
        ("class Box:\n    def load(self): ...\n", "def load(): ...\n"),
    ],
)
def test_names_that_nobody_confuses_are_not_found(tmp_path: Path, one: str, two: str) -> None:
    """Functions that are called with their module's name, private names, and constants of one value."""
    assert found(tmp_path, {PYTHON: one, OTHER: two}) == []


@pytest.mark.parametrize(
    ("home", "line"),
    [
        (OTHER, "from taskcell.two import Listing"),
        (OTHER, "from taskcell.two import Listing as Other"),
        ("server/taskcell/two/__init__.py", "from taskcell.two import Listing"),
    ],
)
def test_a_name_that_is_imported_from_where_it_is_not_made_is_found(tmp_path: Path, home: str, line: str) -> None:
    again = 'from taskcell.one import Listing\n__all__ = ["Listing"]\n'
    files = {PYTHON: "class Listing: ...\n", home: again, "tests/test_one.py": f"{line}\n"}
    assert found(tmp_path, files) == [
        "tests/test_one.py: imports Listing from server/taskcell/two, which does not make it; "
        "import it from where it is made."
    ]


def test_names_and_modules_are_imported_from_where_they_are_made(tmp_path: Path) -> None:
    files = {
        PYTHON: "import os\nclass Listing: ...\nFIRST, SECOND = 1, 2\n_private = 3\n",
        "server/taskcell/box/__init__.py": "",
        "server/taskcell/box/inner.py": "",
        OTHER: "from taskcell import box, one\nfrom taskcell.box import inner\nfrom taskcell.one import SECOND\n",
        "tests/test_one.py": "from taskcell.one import _private\nfrom elsewhere import anything\n",
    }
    assert found(tmp_path, files) == []


def test_programs_for_images_are_not_modules_of_the_package(tmp_path: Path) -> None:
    files = {PYTHON: "class Refused: ...\n", "server/taskcell/images/files/program.py": "class Refused: ...\n"}
    assert found(tmp_path, files) == []
