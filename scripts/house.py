"""Check what keeps the code easy to find and to read: sizes, the width of prose, and names that are alike.

    house.py [ROOT]     prints one line for each finding; exit code 1 when there is one

A module has at most 300 lines and a function at most 40 lines of code, in Python and in C. A test file may have 650
lines, because it is a list of sentences and not a thing to be understood as a whole; a function in it may not be
longer than any other. Lines of code are those that hold more than a comment, a docstring or nothing.

`[tool.house]` in pyproject.toml names the exceptions, and they may only shrink: `longer` gives the present size of
each module (`path`) or function (`path:name`) that is too long, and `alike` a reason for each name that two modules
share. An exception that is not needed any more is a finding.

ruff holds the width of Python's lines, docstrings and comments included (E501). No rule of ruff counts the lines of a
module or of a function: PLR0915 counts statements.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

MAX_MODULE = 300
MAX_TEST_FILE = 650
MAX_FUNCTION = 40
MAX_WIDTH = 120

CODE = ("server", "tests", "scripts", "bench")
#: Below these, files with these endings have comments that start with '#'.
COMMENTED = ("scripts/*.sh", "manifests/*.toml", "examples/*.toml", "*.toml", "Makefile")
PACKAGE = "server/taskcell/"
#: Programs that are copied into images: nothing imports them, and no module of the package is confused with them.
APART = f"{PACKAGE}images/files/"

Functions = ast.FunctionDef | ast.AsyncFunctionDef
_NOT_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)
_C_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|/\*.*?\*/|//[^\n]*', re.DOTALL)
_C_FUNCTION = re.compile(r"^(?P<head>[A-Za-z_][^;={}#]*\([^;{}#]*\)[^;{}()#]*)\{\n.*?^\}", re.DOTALL | re.MULTILINE)
_C_NAME = re.compile(r"(?!__attribute__)\b(\w+)\(")
_LINK_TARGET = re.compile(r"\]\([^)]*\)")


# --- sizes ---------------------------------------------------------------------------------------------------------


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and limit of every module, as `path`, and of every function, as `path:name`."""
    found = {}
    for path in sources(root, "py", "c", "h"):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        found[name] = (text.count("\n"), MAX_TEST_FILE if name.startswith("tests/") else MAX_MODULE)
        functions = python_functions(text) if path.suffix == ".py" else c_functions(text)
        for function, lines in functions:
            found[f"{name}:{function}"] = (max(lines, found.get(f"{name}:{function}", (0, 0))[0]), MAX_FUNCTION)
    return found


def sources(root: Path, *endings: str) -> Iterator[Path]:
    """Yield the files of the project's code, in the order of their paths."""
    for folder in CODE:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix.removeprefix(".") in endings and path.is_file():
                yield path


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield every function with its lines of code; a method as `Class.method`."""
    code = code_lines(text)
    tree = ast.parse(text)
    owners = {
        child: f"{node.name}."
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for child in node.body
        if isinstance(child, Functions)
    }
    for node in ast.walk(tree):
        if isinstance(node, Functions):
            span = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            yield owners.get(node, "") + node.name, len((span & code) - docstring_lines(node))


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold more than a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = (range(token.start[0], token.end[0] + 1) for token in tokens if token.type not in _NOT_CODE)
    return set().union(*spans)


def docstring_lines(node: Functions) -> set[int]:
    """Return the numbers of the lines of a function's docstring."""
    if ast.get_docstring(node, clean=False) is None:
        return set()
    return set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield every function of a C file with its lines of code. A function ends at a brace in the first column."""
    bare = _C_STRING_OR_COMMENT.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text)
    for found in _C_FUNCTION.finditer(bare):
        name = _C_NAME.search(found["head"])
        yield name[1] if name else found["head"].strip(), sum(1 for line in found[0].split("\n") if line.strip())


def check_sizes(root: Path, longer: Mapping[str, int]) -> Iterator[str]:
    """Report what is too long and has no exception, or another size than its exception says."""
    measured = sizes(root)
    for name, (size, limit) in measured.items():
        allowed = longer.get(name)
        if size > limit and allowed is None:
            yield f"{name}: {size} lines, and {limit} are the most; split it."
        elif size > limit and allowed is not None and size > allowed:
            yield f"{name}: {size} lines, and its exception allows {allowed}; an exception may only shrink."
        elif size > limit and size != allowed:
            yield f"{name}: {size} lines now; write {size} for {allowed} in [tool.house.longer]."
        elif allowed is not None and size <= limit:
            yield f"{name}: {size} lines, so its exception is not needed; take it out of [tool.house.longer]."
    for name in longer.keys() - measured.keys():
        yield f"{name}: does not exist; take it out of [tool.house.longer]."


# --- width ---------------------------------------------------------------------------------------------------------


def check_width(root: Path) -> Iterator[str]:
    """Report lines of prose and of C that are too wide; ruff looks at Python's."""
    for path in (*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))):
        yield from _too_wide(root, path, prose(path.read_text(encoding="utf-8")))
    for path in sources(root, "c", "h"):
        yield from _too_wide(root, path, enumerate(path.read_text(encoding="utf-8").split("\n"), 1))
    for pattern in COMMENTED:
        for path in sorted(root.glob(pattern)):
            lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
            yield from _too_wide(root, path, ((at, line) for at, line in lines if line.lstrip().startswith("#")))


def _too_wide(root: Path, path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for at, line in lines:
        if len(line) > MAX_WIDTH:
            yield f"{path.relative_to(root).as_posix()}:{at}: {len(line)} characters, and {MAX_WIDTH} are the most."


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of Markdown outside of code and tables, without the targets of links."""
    lines, in_table = text.split("\n"), False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        in_table = token.type == "table_open" or (in_table and token.type != "table_close")
        if token.type == "inline" and token.map and not in_table:
            for at in range(*token.map):
                yield at + 1, _LINK_TARGET.sub("]", lines[at])


# --- names ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """A public name of a module: its kind is `class`, `function` or `constant`; a constant's value as it is written."""

    module: str
    kind: str
    value: str = ""


def check_names(root: Path, alike: Mapping[str, str]) -> Iterator[str]:
    """Report public names that two modules share without a reason, and names imported from where nobody makes them.

    A reader, or a search, would find the wrong one.
    """
    trees = {path.relative_to(root).as_posix(): ast.parse(path.read_text("utf-8")) for path in sources(root, "py")}
    made = {module: dict(names_of(module, tree)) for module, tree in trees.items() if module.startswith(PACKAGE)}
    imports = [(module, *found) for module, tree in trees.items() for found in imports_of(tree)]
    yield from _other_homes(made, imports)
    names: dict[str, list[Name]] = defaultdict(list)
    for module, found in made.items():
        for word, name in found.items():
            if not word.startswith("_") and not module.startswith(APART):
                names[word].append(name)
    bare = {(f"{home}.py", word) for module, home, word, renamed in imports if not renamed and module in made}
    shared = {word for word, found in names.items() if are_confused(word, found, bare)}
    for word in sorted(shared - alike.keys()):
        modules = ", ".join(name.module.removeprefix(PACKAGE) for name in names[word])
        yield f"{word}: a public name in {modules}; give all but one another name."
    for word in sorted(alike.keys() - shared):
        yield f"{word}: no two modules share it, so its exception is not needed; take it out of [tool.house.alike]."


def _other_homes(made: Mapping[str, Mapping[str, Name]], imports: list[tuple[str, str, str, bool]]) -> Iterator[str]:
    for module, home, word, _ in imports:
        names = made.get(f"{home}.py", made.get(f"{home}/__init__.py"))
        is_module = not made.keys().isdisjoint({f"{home}/{word}.py", f"{home}/{word}/__init__.py"})
        if names is not None and word not in names and not is_module:
            yield f"{module}: imports {word} from {home}, which does not make it; import it from where it is made."


def names_of(module: str, tree: ast.Module) -> Iterator[tuple[str, Name]]:
    """Yield each class, function and constant that a module makes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name, Name(module, "class")
        elif isinstance(node, Functions):
            yield node.name, Name(module, "function")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            yield from ((name, Name(module, "constant", ast.unparse(node.value))) for name in names)


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str, bool]]:
    """Yield module (as a path without `.py`), name, and whether it is renamed, of each `from … import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            home = f"server/{node.module.replace('.', '/')}"
            yield from ((home, alias.name, alias.asname is not None) for alias in node.names)


def are_confused(word: str, names: list[Name], bare: set[tuple[str, str]]) -> bool:
    """Whether a reader could take one for another. Classes and constants are known by their name alone.

    Functions are too, unless all who call them write the module before it: `manifest.load`, `config.load`.
    """
    if len(names) < 2:
        return False
    kinds = {name.kind for name in names}
    if kinds == {"constant"}:
        return len({name.value for name in names}) > 1
    return kinds != {"function"} or any((name.module, word) in bare for name in names)


def main(arguments: list[str]) -> int:
    """Print every finding below the given folder, or below this checkout."""
    root = Path(arguments[0]) if arguments else Path(__file__).parent.parent
    house = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {}).get("house", {})
    found = [
        *check_sizes(root, house.get("longer", {})),
        *check_width(root),
        *check_names(root, house.get("alike", {})),
    ]
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
