"""What a model reads of taskcell's own tools before it has done anything: short, and with every fact that it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent_task import Task
from gateways import OWN_TOOLS, GatewayFactory
from offers import ENVIRONMENTS, shipped
from taskcell.config.settings import Settings
from taskcell.images.default import PROGRAMS
from taskcell.schema.published import published
from taskcell.tools.catalog import build_tools
from taskcell.tools.cost import handed_over
from taskcell.tools.terminal import terminal_tool
from taskcell.tools.tool import Tool

#: Bytes of what clients put into each request of a model: of all tools that a new installation offers, and of one tool
#: of a shipped skill.
MOST = 12_000
MOST_OF_A_SKILLS = 1_200
#: The same with three environments and a pattern of images: what `sandbox` says of them, once.
MOST_WITH_ENVIRONMENTS = 12_500
TOOLS = build_tools(Settings(), [])


def described(schema: Any) -> Iterator[str]:
    for key, value in schema.items():
        if key == "description" and isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from described(value)


def read_of(tool: Tool) -> str:
    return " ".join([tool.name, tool.description, *described(published(tool.input_schema))])


def sizes_of(tools: Mapping[str, Tool]) -> dict[str, int]:
    return {name: len(json.dumps(handed_over(tool), separators=(",", ":")).encode()) for name, tool in tools.items()}


def offered_of(tools: Mapping[str, Tool]) -> list[str]:
    """The tools that run where the default image alone was built."""
    default = Settings().terminal.image
    return [name for name, tool in tools.items() if tool.profile is None or tool.profile.image == default]


def test_the_tools_of_a_new_installation_are_worth_their_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    tools = shipped()
    sizes, offered = sizes_of(tools), offered_of(tools)
    size = sum(sizes[name] for name in offered)
    with capsys.disabled():
        print(
            "",
            *(
                f"{size:6,} {name}{'' if name in offered else ' (not in the default image)'}"
                for name, size in sizes.items()
            ),
            f"{size:6,} of {MOST:,}",
            sep="\n",
        )
    assert list(sizes)[: len(OWN_TOOLS)] == OWN_TOOLS
    assert size < MOST
    assert {name: size for name, size in sizes.items() if name not in OWN_TOOLS and size >= MOST_OF_A_SKILLS} == {}


def test_environments_and_images_of_a_task_add_to_the_tool_sandbox_alone(capsys: pytest.CaptureFixture[str]) -> None:
    plain, tools = sizes_of(shipped()), shipped(ENVIRONMENTS)
    sizes, offered = sizes_of(tools), offered_of(tools)
    size = sum(sizes[name] for name in offered)
    with capsys.disabled():
        print("", f"{size:6,} of {MOST_WITH_ENVIRONMENTS:,} with environments and task_images", sep="\n")
    assert {name for name in plain if sizes[name] != plain[name]} == {"sandbox"}
    assert size < MOST_WITH_ENVIRONMENTS


def test_no_two_tools_repeat_a_sentence_but_what_is_true_of_all_skills() -> None:
    seen: dict[str, list[str]] = {}
    for name, tool in shipped().items():
        for sentence in set(re.split(r"(?<=[.:;]) ", tool.description)):
            seen.setdefault(sentence, []).append(name)
    of_all = {"Paths begin at the task's /workspace.", "No network.", "Example:"}
    repeated = {sentence for sentence, names in seen.items() if len(names) > 1 and len(sentence) > 25}
    assert repeated - of_all == set()


@pytest.mark.parametrize(
    ("tool", "facts"),
    [
        ("terminal", "own Linux container"),
        ("terminal", "Working directory and exported variables and functions carry over to the next command"),
        ("terminal", "nothing else of the shell does"),
        ("terminal", "uid 1000 without sudo"),
        ("terminal", "HOME is /workspace"),
        ("terminal", "Writable: /workspace, /tmp, /var/tmp, /dev/shm."),
        ("terminal", "CPUs: 1."),
        ("terminal", "Programs: python 3.11 (pip, venv, pytest), gcc"),
        ("terminal", "/workspace are shared with all skills"),
        ("terminal", "No network"),
        ("terminal", "Memory: 2 GiB"),
        ("terminal", "includes stderr"),
        ("terminal", "non-zero exit code is not a tool error"),
        ("terminal", "all it started are killed; output so far is kept"),
        ("terminal", "still running goes on under `process`"),
        ("terminal", "Without `stdin`, `process` can write to it"),
        ("terminal", "Default: where the last command ended"),
        ("process", "cursor to continue from"),
        ("process", "until the sandbox closes or 64 newer commands have finished"),
        ("process", "kill it and all it started"),
        ("process", "default 50"),
        ("process", "until the output has a match, from `cursor` on or in all of it"),
        ("terminal", "Default 180; with `background` none"),
        ("sandbox", "/workspace stays"),
        ("sandbox", "delete its files"),
        ("read_file", "line numbers"),
        ("read_file", "PNG, JPEG, GIF, WebP"),
        ("read_file", "relative to /workspace"),
        ("write_file", "at most 4 MiB"),
        ("write_file", "atomically and keeps its mode"),
        ("write_file", "base64 for other bytes"),
        ("edit_file", "exactly `count` times"),
        ("edit_file", "without line numbers"),
        ("edit_file", "LF matches CRLF too"),
        ("edit_file", "or none if the number is wrong"),
        ("list_files", "at most 1000"),
        ("list_files", "Links are followed where `glob` names them"),
        ("list_files", "Hidden files match"),
        ("list_files", "what .gitignore names"),
        ("edit_file", "all or none"),
        ("edit_file", "insert `new` after this line"),
        ("write_file", "not as this task last read or wrote it"),
        ("read_file", "-20 is the last 20 lines"),
        ("search", "ripgrep"),
        ("search", ".gitignore names are left out"),
    ],
)
def test_a_tools_texts_say_what_a_model_acts_on(tool: str, facts: str) -> None:
    assert facts in read_of(TOOLS[tool])


#: The table `[terminal]`, what the description says then, and what it does not say.
TERMINALS: tuple[tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]], ...] = (
    ({"image": "golang:1.25"}, ("uid 1000 without sudo",), ("Programs", "python")),
    ({"image": "taskcell/python:latest"}, ("gcc, g++", "; Python with NumPy, pandas"), ()),
    ({"sudo": True}, ("with sudo", "Files outside /workspace go with the sandbox."), ("without sudo", "Writable")),
    ({"read_only": False}, ("Files outside /workspace go with the sandbox.",), ("Writable",)),
    ({"user": "postgres:postgres"}, ("Runs as postgres without sudo",), ("uid",)),
    ({"user": "1234"}, ("Runs as uid 1234 without sudo",), ()),
    ({"environment": ("HOME=/home/dev",)}, ("HOME is /home/dev.",), ("HOME is /workspace",)),
    ({"network": "bridge"}, ("Network: 'bridge'.",), ("No network",)),
    (
        {"volumes": ("/srv/data:/data:ro", "/srv/cache:/cache", "${SKILL_WORKDIR}:/src")},
        ("Writable: /workspace, /tmp, /var/tmp, /dev/shm, /cache. Read-only: /data.", "(also at /src)"),
        (),
    ),
    ({"memory": 3 << 30, "cpus": 2.5}, ("Memory: 3 GiB. CPUs: 2.5.",), ()),
    ({"extra_args": ("--tmpfs=/scratch:size=1m",)}, ("/dev/shm, /scratch.",), ()),
)


@pytest.mark.parametrize(("table", "said", "unsaid"), TERMINALS)
def test_the_terminals_description_is_true_for_its_profile(
    table: dict[str, Any], said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    text = terminal_tool(Settings.model_validate({"terminal": table})).description
    assert all(words in text for words in said), text
    assert not any(words in text for words in unsaid), text


def test_a_terminal_without_a_container_promises_none_of_its_bounds() -> None:
    text = terminal_tool(Settings.model_validate({"engine": {"kind": "local"}})).description
    assert "process of the server's own machine" in text
    assert not any(
        words in text for words in ("own Linux container", "No network", "Memory", "CPUs", "Writable", "sudo")
    )


@pytest.mark.engine
@pytest.mark.anyio
async def test_the_default_terminal_is_as_its_description_says(gateway: GatewayFactory) -> None:
    async with gateway() as gw:
        task = Task(gw)

        async def printed(command: str) -> str:
            return (await task.terminal(command)).stdout.strip()

        assert (await printed("id -u; echo $HOME")) == "1000\n/workspace"
        assert (await task.terminal("sudo -n true")).exit_code != 0
        writable = "for d in /workspace /tmp /var/tmp /dev/shm; do touch $d/x || echo not $d; done"
        assert await printed(writable) == ""
        found = await printed("find / -xdev -writable -type d 2>/dev/null")
        assert set(found.split()) <= {"/workspace", "/tmp", "/var/tmp", "/dev/shm"}
        assert (await task.terminal("touch /run/x || touch /etc/x || touch /opt/x")).exit_code == 1
        for word in re.findall(r"[a-z0-9+]+", re.sub(r"python 3\.11|venv", "", PROGRAMS)):
            assert await printed(f"command -v {word}") != "", word
        assert "Python 3.11." in await printed("python --version; python -m venv --help | head -1")
        assert await printed("ls /sys/class/net") == "lo"


def test_the_terminal_promises_functions_of_bash_alone() -> None:
    settings = Settings.model_validate({"terminal": {"shell": ["/bin/sh", "-c"]}})
    said = terminal_tool(settings).description
    assert "Working directory and exported variables carry over to the next command" in said
