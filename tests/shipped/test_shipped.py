"""The shipped manifests: what can be told of them without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from skill_task import MANIFESTS
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.errors import BadArgument
from taskcell.images import skills as skill_images
from taskcell.model import LOCAL_PRINCIPAL, ToolCall
from taskcell.policy.policy import Policy
from taskcell.skills import manifest
from taskcell.tools.binding import CommandTool
from taskcell.tools.catalog import build_tools, built_in_names

DOCS = MANIFESTS.parent / "docs" / "skills.md"
SETTINGS = load_settings(Invocation({}, MANIFESTS.parent, MANIFESTS.parent / "examples" / "taskcell.toml"))
SKILLS = manifest.load([MANIFESTS], {}, built_in_names())
TOOLS = {name: made for name, made in build_tools(SETTINGS, SKILLS).items() if name not in built_in_names()}


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


def accepted(name: str, **arguments: Any) -> bool:
    """Whether a tool takes its example with these arguments."""
    made = TOOLS[name]
    try:
        made.bind(ToolCall(LOCAL_PRINCIPAL, name, example(made) | arguments))
    except BadArgument:
        return False
    return True


@pytest.mark.parametrize("name", ["image_convert", "image_montage", "ffmpeg_thumbnail"])
def test_a_picture_is_written_only_under_an_extension_of_its_format(name: str) -> None:
    for output in ("a.png", "new/a b.JPG", "./x.y.Webp", "+a.bmp"):
        assert accepted(name, output=output), output
    for output in ("q.svg", "q.jpgg", "q", "png", ".png", "new/.png", "q.png/x", "q%d.png", "q.png\n"):
        assert not accepted(name, output=output), output


@pytest.mark.parametrize("name", ["image_convert", "image_montage"])
def test_imagemagick_writes_to_no_name_that_it_reads_more_into(name: str) -> None:
    for output in ("info:.png", "info:a.png", "a*.png", "a[1].png", "a?.png", "a.heif", "a.psd"):
        assert not accepted(name, output=output), output


def test_an_operation_that_writes_another_file_is_refused() -> None:
    assert accepted("image_convert", operations=["-blur", "0x3", "-write-mask", "m.png", "-negate", "two\nlines"])
    for word in ("-write", "+write"):
        assert not accepted("image_convert", operations=["-negate", word, "b.png"])


@pytest.mark.parametrize("name", ["image_identify", "image_montage"])
def test_pictures_must_be_named_and_not_as_options(name: str) -> None:
    assert accepted(name, inputs=["./+x.png"])
    for inputs in ([], [""], ["+x.png"], ["a.png", "-x.png"]):
        assert not accepted(name, inputs=inputs), inputs
    assert not accepted("image_convert", input="+x.png")


def test_ffmpeg_numbers_pictures_alone() -> None:
    for output in ("frames/%04d.png", "f%d.JPG", "f-%3d-b.tiff", "plain.mp4"):
        assert accepted("ffmpeg_convert", output=output), output
    for output in ("100%.mp4", "%d.mp4", "%d/a.png", "%d-%d.png", "%s.png", "%%.png", "%99999d.png"):
        assert not accepted("ffmpeg_convert", output=output), output
    for name in ("ffmpeg_trim", "ffmpeg_extract_audio"):
        assert not accepted(name, output="100%d.wav")


def test_pandoc_refuses_to_write_pdf_before_it_runs() -> None:
    assert accepted("pandoc_convert", output="a.pdf.docx")
    for output in ("a.pdf", "a.PDF"):
        assert not accepted("pandoc_convert", output=output)


def test_every_image_is_the_default_one_or_one_that_a_command_builds() -> None:
    commands = {made.profile.image: skill_images.build_command(made.profile.image) for made in TOOLS.values()}
    assert None not in commands.values()
    used = {image.removeprefix("taskcell/").removesuffix(":latest") for image in commands}
    assert used - {"base"} == set(skill_images.CATALOG)


def test_what_needs_no_image_of_its_own_is_what_the_demo_uses() -> None:
    assert {made.profile.name for made in TOOLS.values() if made.profile.image == "taskcell/base:latest"} == {
        "sql",
        "jq",
    }


def test_only_tools_that_write_no_file_say_that_they_change_nothing() -> None:
    reading = {made.name for made in TOOLS.values() if made.annotations.read_only}
    assert reading == {
        "image_identify", "ffmpeg_probe", "pandoc_read", "pdf_info", "pdf_text",
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
    assert manifest.load([tmp_path], {}, built_in_names())
