"""Check that no two of the supervisor's C files need each other, and that its folders stand in layers.

    c_layers.py [ROOT]     prints one line for each finding; exit code 1 when there is one

A module is a .c file with the header of its name, or a header alone. One module needs another when it includes its
header. Each .c file includes its own header first, and the header of every module whose functions it calls: the
compiler would also accept one that comes by way of a third header, and then the includes would hide who needs whom.
Calls are not guessed from the text but read from the compiled objects, so gcc and nm are needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "server/supervisor/src"

#: What the modules of a folder may need beside each other; "." holds the program's entry and its bridge.
LAYERS: Mapping[str, frozenset[str]] = {
    "base": frozenset(),
    "file": frozenset({"base"}),
    "transfer": frozenset({"base", "file"}),
    "start": frozenset({"base"}),
    "sudo": frozenset({"base", "start"}),
    "init": frozenset({"base", "start", "sudo"}),
    ".": frozenset({"base", "file", "transfer", "start", "sudo", "init"}),
}
#: Nobody calls into the program's entry, so it has no header.
ENTRY = "main"
#: Seconds for one file; it takes a tenth of one.
COMPILE_TIMEOUT = 60

_INCLUDE = re.compile(r'^#include "([^"]+)\.h"', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def check(source: Path) -> Iterator[str]:
    """One sentence for each fault.

    Raises:
        subprocess.CalledProcessError: a file does not compile.
    """
    files = {path.relative_to(source): path.read_text("utf-8") for path in sorted(source.rglob("*.[ch]"))}
    includes = {path: [found for found in _INCLUDE.findall(text) if found] for path, text in files.items()}
    yield from check_headers(files, includes)
    needs: dict[str, set[str]] = defaultdict(set)
    for path, names in includes.items():
        module = path.with_suffix("").as_posix()
        needs[module] |= set(names) - {module}
    yield from check_layers(needs)
    yield from check_circles(needs)
    defined, called = symbols(source, [path for path in files if path.suffix == ".c"])
    yield from check_calls(files, needs, defined, called)


def check_headers(files: Mapping[Path, str], includes: Mapping[Path, list[str]]) -> Iterator[str]:
    """Every .c file has a header of its name, and includes it before any other."""
    for path in files:
        module = path.with_suffix("").as_posix()
        if path.suffix != ".c" or module == ENTRY:
            continue
        if path.with_suffix(".h") not in files:
            yield f"{path}: has no header; declare in {module}.h what others may call."
        elif includes[path][:1] != [module]:
            yield f"{path}: includes another header before its own, which may then miss what it needs itself."


def check_layers(needs: Mapping[str, set[str]]) -> Iterator[str]:
    """No module needs one of a folder that is not below its own."""
    for module, needed in sorted(needs.items()):
        folder = Path(module).parent.as_posix()
        if folder not in LAYERS:
            yield f"{module}: the folder '{folder}' is in no layer; name it in LAYERS."
            continue
        for other in sorted(needed):
            below = Path(other).parent.as_posix()
            if below != folder and below not in LAYERS[folder]:
                yield f"{module}: needs {other}, and '{below}' is not below '{folder}'."


def check_circles(needs: Mapping[str, set[str]]) -> Iterator[str]:
    """No module needs itself by way of others."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        yield f"a circle: {' needs '.join(reversed(error.args[1]))}."


def symbols(source: Path, files: list[Path]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The module that defines each external name, and the external names that each module uses."""
    defined: dict[str, str] = {}
    called: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            module, compiled = path.with_suffix("").as_posix(), Path(folder) / "object.o"
            _output("gcc", "-std=c11", "-D_GNU_SOURCE", "-I", source, "-c", source / path, "-o", compiled)
            names = [line.split() for line in _output("nm", "--format=posix", compiled).splitlines()]
            called[module] = {name for name, kind, *_ in names if kind == "U"}
            defined |= {name: module for name, kind, *_ in names if kind in "TDBRC"}
    return defined, called


def check_calls(
    files: Mapping[Path, str], needs: Mapping[str, set[str]], defined: Mapping[str, str], called: Mapping[str, set[str]]
) -> Iterator[str]:
    """Whoever uses a name includes its owner's header, and the header says the name."""
    for module, names in called.items():
        for name in sorted(names & defined.keys()):
            if defined[name] not in needs[module]:
                yield f"{module}: uses {name} and does not include {defined[name]}.h, which owns it."
    for name, module in defined.items():
        header = _COMMENT.sub("", files.get(Path(f"{module}.h"), ""))
        if module != ENTRY and not re.search(rf"\b{name}\b", header):
            yield f"{module}: {name} is not in {module}.h; make it static."


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT).stdout


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    try:
        faults = list(check(root / SOURCE))
    except FileNotFoundError as error:
        faults = [f"'{error.filename}' is needed to compile the supervisor; install it (apt-get install gcc)."]
    except subprocess.CalledProcessError as error:
        faults = [f"The supervisor does not compile: {error.stderr.strip()}"]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
