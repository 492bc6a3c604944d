"""The shipped manifests: what can be told of them without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from skill_task import MANIFESTS

from taskcell import config, manifest, tool
from taskcell.engine import skill_images
from taskcell.errors import BadArgument
from taskcell.model import LOCAL_PRINCIPAL, ToolCall
from taskcell.policy import Policy
from taskcell.tool import CommandTool

DOCS = MANIFESTS.parent / "docs" / "skills.md"
SETTINGS = config.load(MANIFESTS.parent / "examples" / "taskcell.toml", {}, MANIFESTS.parent)
SKILLS = manifest.load([MANIFESTS], {})
TOOLS = {name: made for name, made in tool.build_tools(SETTINGS, SKILLS).items() if name != "terminal"}


def example(made: CommandTool) -> dict[str, Any]:
    """The arguments of the example in a tool's description."""
    where = made.description.index("Example")
    start = min(place for mark in "{[" if (place := made.description.find(mark, where)) > 0)
    found, _ = json.JSONDecoder().raw_decode(made.description[start:])
    return found if isinstance(found, dict) else {"args": found}


@pytest.mark.parametrize("made", TOOLS.values(), ids=TOOLS)
def test_every_description_has_an_example_that_is_a_valid_call(made: CommandTool) -> None:
    command = made.bind(ToolCall(LOCAL_PRINCIPAL, made.name, example(made)))
    assert Policy(SETTINGS.policy).authorize(command).command is command


@pytest.mark.parametrize("made", [made for made in TOOLS.values() if "_" in made.name], ids=lambda made: made.name)
def test_no_text_that_looks_like_an_option_becomes_one(made: CommandTool) -> None:
    """It is refused, or it stands behind `--`, or it is the standard input."""
    for name, schema in made.input_schema["properties"].items():
        if schema["type"] == "string" and name != "task_id":
            try:
                argv = made.bind(ToolCall(LOCAL_PRINCIPAL, made.name, example(made) | {name: "-x"})).argv
            except BadArgument:
                continue
            assert "-x" not in argv[: argv.index("--") if "--" in argv else None], (made.name, name)


def test_every_image_is_the_default_one_or_one_that_a_command_builds() -> None:
    commands = {made.profile.image: skill_images.build_command(made.profile.image) for made in TOOLS.values()}
    assert None not in commands.values()
    used = {image.removeprefix("taskcell/").removesuffix(":latest") for image in commands}
    assert used - {"base"} == set(skill_images.CATALOG)


def test_what_needs_no_image_of_its_own_is_what_the_demo_uses() -> None:
    assert {made.profile.name for made in TOOLS.values() if made.profile.image == "taskcell/base:latest"} == {
        "sql",
        "jq",
        "search",
    }


def test_only_tools_that_write_no_file_say_that_they_change_nothing() -> None:
    reading = {made.name for made in TOOLS.values() if made.annotations.read_only}
    assert reading == {
        "image_identify", "ffmpeg_probe", "pandoc_read", "pdf_info", "pdf_text", "search_text", "search_files",
    }  # fmt: skip
    assert not any("overwrite" in TOOLS[name].input_schema["properties"] for name in reading)


def test_the_document_names_every_tool_and_every_image() -> None:
    text = DOCS.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert set(TOOLS) | set(skill_images.CATALOG) <= named


def test_the_documents_own_skill_is_good(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.toml").write_text(block, encoding="utf-8")
    assert manifest.load([tmp_path], {})
