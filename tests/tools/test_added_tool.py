"""A new tool of taskcell's own costs two files, its own and what it runs: here they are written and driven."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from asking import ASKED, text_of
from gateways import OWN_TOOLS
from raw_client import LOCAL, PATIENCE
from serving import serving

#: The file that docs/contributing.md asks for: `tools/NAME.py`.
TOOL = '''
"""The tool `word_count`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from taskcell.config.settings import Settings
from taskcell.model import Command, Profile, ToolCall
from taskcell.profile.build import terminal_profile
from taskcell.schema.properties import TASK_ID, value_schema, object_schema
from taskcell.tools.binding import task_key
from taskcell.tools.counting import count_words
from taskcell.tools.tool import Access, BuiltIn, ToolReport, Tool, ToolAnnotations, Watch


@dataclass(frozen=True, kw_only=True)
class WordCount(Tool):
    profile: Profile = field()
    shell: tuple[str, ...]

    def commands(self, call: ToolCall) -> Sequence[Command]:
        values = self.check(call)
        line = f"wc -w < {shlex.quote(values['path'])}"
        return (Command(task_key(call, values), self.name, self.profile, (*self.shell, line), line, timeout=10),)

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        (command,) = self.commands(call)
        return await count_words(gateway, command, watch)


def _make(settings: Settings) -> Iterator[Tool]:
    yield WordCount(
        name="word_count",
        title="Count words",
        description="Count the words of a file.",
        input_schema=object_schema({"path": value_schema("string", "Path of the file."), "task_id": TASK_ID}, ["path"]),
        output_schema=object_schema({"words": value_schema("integer", "How many there are.")}),
        annotations=ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False),
        profile=terminal_profile(settings),
        shell=tuple(settings.terminal.shell),
    )


BUILT_IN = BuiltIn(names=("word_count",), make=_make, rank=9)
'''
RUNS = '''
"""Counts words in a sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from taskcell.model import Command
from taskcell.tools.tool import Access, Watch


@dataclass(frozen=True, slots=True)
class WordReport:
    words: int
    is_error: bool = False
    pictures: ClassVar[tuple[()]] = ()
    extent: ClassVar[int] = 0

    def structured(self) -> dict[str, int]:
        return {"words": self.words}

    def output(self) -> str:
        return ""

    def said(self) -> str:
        return f"{self.words} words"

    def cut(self, most: int) -> "WordReport":
        return self


async def count_words(gateway: Access, command: Command, watch: Watch | None) -> WordReport:
    result = await gateway.run(command, watch)
    if result.exit_code != 0:
        return WordReport(0, is_error=True)
    return WordReport(int(result.stdout))
'''
#: taskcell as it is when one more folder belongs to the package of tools.
STARTER = """
import sys

import taskcell.tools

taskcell.tools.__path__.append({folder!r})

from taskcell.__main__ import main

sys.exit(main())
"""
RULE = """
[[policy.rules]]
name = "no-secrets"
tool = "word_count"
command = "secret"
effect = "deny"
reason = "Not these."
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """Python's arguments that make it a taskcell with the new tool."""
    folder = tmp_path / "more_tools"
    folder.mkdir()
    (folder / "word_count.py").write_text(TOOL)
    (folder / "counting.py").write_text(RUNS)
    starter = tmp_path / "starter.py"
    starter.write_text(STARTER.format(folder=str(folder)))
    return [str(starter)]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_lists_and_calls_a_tool_that_two_files_have_added(
    tmp_path: Path, program: list[str], mode: str
) -> None:
    toml = "manifests = []\n" + LOCAL + RULE
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, toml, mode=mode, program=program) as (client, _):
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            await client.call_tool("write_file", {"path": "a", "content": "one two three"})
            good = await client.call_tool("word_count", {"path": "a"}, meta=ASKED)
            elsewhere = await client.call_tool("word_count", {"path": "a", "task_id": "another"})
            wrong = await client.session.call_tool("word_count", {"path": 5})
            denied = await client.session.call_tool("word_count", {"path": "secret"})
    assert list(listed) == [*OWN_TOOLS, "word_count"]
    assert listed["word_count"].title == "Count words"
    assert listed["word_count"].annotations is not None
    assert listed["word_count"].annotations.read_only_hint
    assert (text_of(good), good.structured_content, good.is_error) == ("3 words", {"words": 3}, False)
    assert elsewhere.is_error
    assert text_of(wrong) == "'path' must be text, not a number."
    assert "no-secrets" in text_of(denied)


def test_no_skill_may_take_the_name_of_an_added_tool_and_its_calls_can_be_judged(
    tmp_path: Path, program: list[str]
) -> None:
    manifest = tmp_path / "skills.toml"
    manifest.write_text(
        'version = "1"\n[skills.word_count]\ndescription = "Mine."\nsource = "docker:taskcell/base:latest"\n'
    )
    config = tmp_path / "taskcell.toml"

    def taskcell(manifests: str, *words: str) -> subprocess.CompletedProcess[str]:
        config.write_text(f"manifests = {manifests}\n" + LOCAL + RULE)
        call = [sys.executable, *program, *words, "--config", str(config)]
        return subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False)

    checked = taskcell('["skills.toml"]', "skills", "check")
    assert checked.returncode == 1
    assert "'word_count' is the name of one of taskcell's own tools" in checked.stderr
    explained = taskcell("[]", "policy", "explain", "word_count", '{"path": "secret"}')
    assert explained.stdout.startswith("deny, by the rule 'no-secrets': Not these.")
