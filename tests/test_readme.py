"""What the documents say is true: their blocks parse, their commands exist, their links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.skills import manifest
from taskcell.tools.catalog import build_tools, built_in_names

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
#: Seconds for `taskcell … --help` on a busy machine; it takes half a second.
HELP_TIMEOUT = 60

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: A file or folder of the project, as prose names it. One with NAME in it stands for any.
PATH = re.compile(r"`([A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)*(?:\.(?:py|c|h|md|toml|sh)|/))`")
LAST_DONE = re.compile(r"Last done: `([0-9a-f]{7})` (.+?)(?: \([^()]*\))?\.")
MAKE = re.compile(r"(?:`|^)make ([a-z]+)\b", re.MULTILINE)
IN_PROSE = re.compile(r"`taskcell ((?:[a-z]+ ?)+)")
IN_A_BLOCK = re.compile(r"^taskcell ((?:[a-z]+ ?)+)", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [text for path in DOCUMENTS for kind, text in BLOCK.findall(path.read_text()) if kind == language]


def commands() -> list[str]:
    """`taskcell X`, or `taskcell X Y` where X is a group, that any document names."""
    named = set()
    for path in DOCUMENTS:
        text = path.read_text()
        shown = [words for kind, block in BLOCK.findall(text) if kind == "sh" for words in IN_A_BLOCK.findall(block)]
        for words in (*IN_PROSE.findall(text), *shown):
            first, *rest = words.split()
            named.add(f"{first} {rest[0]}" if first in ("skills", "policy", "image") and rest else first)
    return sorted(named)


def taskcell_help(words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "taskcell", *words.split(), "--help"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=HELP_TIMEOUT, check=False)


@pytest.mark.parametrize("text", blocks("toml"), ids=lambda text: text.split("\n")[0])
def test_every_toml_block_is_a_manifest_or_a_configuration_that_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "taskcell.toml"
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-the-example")
    path.write_text(text.replace("/run/secrets/ci_token", str(secret)))
    if "version" in tomllib.loads(text):
        assert manifest.load([path], {}, built_in_names())
    else:
        load_settings(Invocation({"API_KEY": "another-secret-of-the-example"}, tmp_path, path))


@pytest.mark.parametrize("text", blocks("json"), ids=lambda text: text[:20])
def test_every_json_block_is_json(text: str) -> None:
    assert json.loads(text)


def test_the_readme_has_a_manifest_and_a_configuration() -> None:
    found = [tomllib.loads(text) for kind, text in BLOCK.findall(README) if kind == "toml"]
    assert any("skills" in block for block in found)
    assert any("policy" in block for block in found)


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for path in DOCUMENTS for target in MAKE.findall(path.read_text())}
    assert {"demo", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("words", commands())
def test_every_command_that_a_document_names_exists(words: str) -> None:
    shown = taskcell_help(words)
    assert shown.returncode == 0, shown.stderr


def anchors(path: Path) -> set[str]:
    """What a link may name in a document, as GitHub makes it from a heading."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(path.read_text()))
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_its_heading(path: Path) -> None:
    links = [(target, anchor) for target, anchor in LINK.findall(path.read_text()) if "://" not in target]
    for target, anchor in links:
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("name", ["architecture.md", "contributing.md"])
def test_every_path_that_these_pages_name_exists(name: str) -> None:
    named = {path for path in PATH.findall((ROOT / "docs" / name).read_text()) if "NAME" not in path}
    homes = [ROOT, ROOT / "server" / "taskcell", ROOT / "server" / "supervisor" / "src", ROOT / "tests" / "cli"]
    assert len(named) > 10
    assert {path for path in named if not any((home / path).exists() for home in homes)} == set()


def test_the_tree_shows_every_folder_of_the_package_and_of_the_supervisor() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    for top in (ROOT / "server" / "taskcell", ROOT / "server" / "supervisor" / "src"):
        folders = {path.parent.relative_to(top) for path in top.rglob("*") if path.suffix in (".py", ".c")}
        assert {folder.name for folder in folders if folder.name and f" {folder.name}/ " not in tree} == set()


def test_the_layers_in_the_documents_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    shown = (ROOT / "docs" / "architecture.md").read_text().split("## Layers")[1].split("```")[1]
    assert shown.split("\n")[1:-1] == layers


def test_the_index_lists_every_decision_under_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"^- \[(\d{4})\]\((\S+)\) (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert [(path.name[:4], path.name) for path in pages] == [(number, name) for number, name, _ in listed]
    assert [number for number, _, _ in listed] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for number, name, title in listed:
        assert (folder / name).read_text().startswith(f"# {number}: {title}\n\nDecided on 20")


def test_every_commit_that_a_page_names_is_in_the_history_with_its_subject() -> None:
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run(
        [*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=False
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("this is not a whole clone of the repository, so that its history cannot be asked")
    paragraphs = [" ".join(part.split()) for part in (ROOT / "docs" / "contributing.md").read_text().split("\n\n")]
    named = [found.groups() for part in paragraphs if (found := LAST_DONE.fullmatch(part))]
    assert len(named) == 8
    for commit, subject in named:
        found = subprocess.run([*git, "log", "-1", "--format=%s", commit], capture_output=True, text=True, check=False)
        assert found.stdout.strip() == subject


def test_the_tools_that_the_readme_names_are_there() -> None:
    settings = load_settings(Invocation({}, ROOT, ROOT / "examples" / "taskcell.toml"))
    tools = build_tools(settings, manifest.load(settings.manifest_paths, {}, built_in_names()))
    rows = [line.split("|")[1] for line in README.splitlines() if re.match(r"\| (`|a )", line)]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {*built_in_names(), "sql", "jq", "image_convert"} == named
    assert named <= tools.keys()


def test_the_terminals_arguments_in_the_readme_are_those_of_its_schema() -> None:
    settings = load_settings(Invocation({}, ROOT))
    [row] = [line for line in README.splitlines() if line.startswith("| `terminal`")]
    schema = build_tools(settings, [])["terminal"].input_schema
    assert set(re.findall(r"`([a-z_]+)`", row.split("|")[2])) == set(schema["properties"])
