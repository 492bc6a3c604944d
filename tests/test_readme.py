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
from taskcell.tools import files as file_tools
from taskcell.tools import process as process_tool
from taskcell.tools import tool

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
#: Seconds for `taskcell … --help` on a busy machine; it takes half a second.
HELP_TIMEOUT = 60

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
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
    path.write_text(text)
    if "version" in tomllib.loads(text):
        assert manifest.load([path], {})
    else:
        load_settings(Invocation({}, tmp_path, path))


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


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_linked_file_exists(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text()) if "://" not in target]
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_tools_that_the_readme_names_are_there() -> None:
    settings = load_settings(Invocation({}, ROOT, ROOT / "examples" / "taskcell.toml"))
    tools = {
        *tool.build_tools(settings, manifest.load(settings.manifest_paths, {})),
        tool.SANDBOX_TOOL.name,
        process_tool.NAME,
    }
    rows = [line.split("|")[1] for line in README.splitlines() if re.match(r"\| (`|a )", line)]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {"terminal", "process", "sandbox", *file_tools.SCHEMAS, "sql", "jq", "image_convert"} == named
    assert named <= tools


def test_the_terminals_arguments_in_the_readme_are_those_of_its_schema() -> None:
    settings = load_settings(Invocation({}, ROOT))
    [row] = [line for line in README.splitlines() if line.startswith("| `terminal`")]
    schema = tool.build_tools(settings, [])["terminal"].input_schema
    assert set(re.findall(r"`([a-z_]+)`", row.split("|")[2])) == set(schema["properties"])
