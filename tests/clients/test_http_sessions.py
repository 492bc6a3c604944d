"""Whole sessions of real clients over HTTP: every tool, pictures, progress, cancel, time-outs, questions, a lost line.

Each client is a program in the client's own language and environment; `make test-clients` installs them.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest

from cutting_relay import CuttingRelay
from http_serving import serving_http, tokens_for
from media import png
from observe import alive, eventually, marker

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".cache/clients-http"
SESSIONS = Path(__file__).parent / "http_sessions"
#: Seconds for all steps of a session on a busy machine; each step is bounded by the program.
PATIENCE = 240.0
#: Milliseconds after which the client of one step gives up, and a client that has lost its connection for good.
GIVE_UP, GIVE_UP_LOST = 1000, 15_000

CONFIG = """
manifests = ["skills.toml"]
[engine]
kind = "local"
[pool]
warm = 0
[http]
tokens_file = "tokens.json"
[[policy.rules]]
name = "confirm"
tool = "terminal"
command = "^echo asked"
effect = "ask"
reason = "The test wants it."
"""
SKILL = """
[skills.say]
source = "docker:none:1"
[skills.say.docker]
entrypoint = ["echo"]
[skills.say.tools.word]
description = "Say a word."
argv = ["{word}"]
[skills.say.tools.word.parameters]
word = { type = "string", description = "What is said." }
"""
EVERY_TOOL = {
    "terminal": ("terminal", {"command": "echo here; pwd"}, "here\n"),
    "write_file": ("write_file", {"path": "a.txt", "content": "one\ntwo\n"}, "a.txt"),
    "read_file": ("read_file", {"path": "a.txt"}, "two"),
    "edit_file": ("edit_file", {"path": "a.txt", "old": "two", "new": "three"}, "three"),
    "list_files": ("list_files", {}, "a.txt"),
    "search": ("search", {"pattern": "thr.e"}, "a.txt" if which("rg") else "ripgrep"),
    "background": ("terminal", {"command": "cat", "background": True}, "still running"),
    "process": ("process", {"action": "list"}, "cat"),
    "sandbox": ("sandbox", {"action": "status"}, "terminal: ready"),
    "skill": ("say_word", {"word": "spoken"}, "spoken"),
}
#: Prints the command lines of the commands that a client has cancelled or given up, as far as they still run.
LOOK = "for line in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$line; echo; done 2>/dev/null | grep '^sleep 9'"
#: Random enough that it does not become small: 60 kB.
PICTURE = png(160, 130, lambda x, y: ((x * 7919 + y * 104729) % 251, (x * y * 31) % 241, (x * x + y * 17) % 239))


@dataclass(frozen=True)
class SessionProgram:
    """A client, and what it cannot do by itself."""

    name: str
    command: tuple[str, ...]
    era: str
    sends_cancel: bool = True
    comes_back: bool = True


def _node(program: str) -> tuple[str, ...]:
    return (str(INSTALLED / "node_modules/.bin/node"), str(SESSIONS / program))


def _python(place: str, program: str, *options: str) -> tuple[str, ...]:
    return (str(INSTALLED / place / "bin/python"), str(SESSIONS / program), *options)


OURS = (sys.executable, str(SESSIONS / "python_v2.py"))
LATER = "2026-07-28"
CLIENTS = [
    SessionProgram("TypeScript SDK 1.x", _node("typescript_v1.mjs"), "legacy"),
    SessionProgram("TypeScript SDK 2.x", _node("typescript_v2.mjs"), "legacy"),
    SessionProgram("TypeScript SDK 2.x, later era", _node("typescript_v2.mjs"), LATER, comes_back=False),
    SessionProgram("Python SDK 1.x", _python("python-v1", "python_v1.py"), "legacy", sends_cancel=False),
    SessionProgram("Python SDK 2.x", OURS, "legacy"),
    SessionProgram("Python SDK 2.x, later era", OURS, LATER, comes_back=False),
    SessionProgram("FastMCP", _python("fastmcp", "python_v2.py", "--fastmcp"), "legacy"),
    SessionProgram("FastMCP, later era", _python("fastmcp", "python_v2.py", "--fastmcp"), LATER, comes_back=False),
]


@dataclass
class Outcome:
    """What a session came to: the lines that the program wrote by step, and what the host saw."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    was_cut: bool = False

    def text(self, step: str) -> str:
        result = self.steps[step]["result"]
        return "".join(block["text"] for block in result["content"] if block["type"] == "text")

    def is_error(self, step: str) -> bool:
        return bool(self.steps[step]["result"].get("isError"))


def plan_of(client: SessionProgram, marks: dict[str, str], back: Path) -> list[dict[str, Any]]:
    """The steps of a session; the last loses its connection."""
    lost = {} if client.comes_back else {"patience": GIVE_UP_LOST}
    steps = [{"name": name, "tool": tool, "arguments": given} for name, (tool, given, _) in EVERY_TOOL.items()]
    encoded = base64.b64encode(PICTURE).decode()
    put = {"command": "base64 -d > p.png", "stdin": encoded}
    slow = "echo first; sleep 0.5; echo second; sleep 0.5; exit 3"
    wait = f"echo cut here; until [ -e {back} ]; do sleep 0.1; done; echo over"
    return [
        *steps,
        {"name": "put picture", "tool": "terminal", "arguments": put},
        {"name": "picture", "tool": "read_file", "arguments": {"path": "p.png"}},
        {"name": "progress", "tool": "terminal", "arguments": {"command": slow}},
        {"name": "time-out", "tool": "terminal", "arguments": {"command": "echo part; sleep 60", "timeout": 1}},
        {"name": "cancel", "tool": "terminal", "cancel": True, "arguments": running(marks["cancel"])},
        {"name": "give up", "tool": "terminal", "patience": GIVE_UP, "arguments": running(marks["give up"])},
        {"name": "look", "tool": "terminal", "arguments": {"command": LOOK}},
        {"name": "accept", "tool": "terminal", "answer": "accept", "arguments": {"command": "echo asked"}},
        {"name": "decline", "tool": "terminal", "answer": "decline", "arguments": {"command": "echo asked"}},
        {"name": "lost line", "tool": "terminal", "arguments": {"command": wait, "timeout": 30}, **lost},
        {"name": "after", "tool": "terminal", "arguments": {"command": "echo still here"}},
    ]  # fmt: skip


def running(mark: str) -> dict[str, str]:
    return {"command": f"echo started; sleep {mark}"}


@cache
def outcome_of(client: SessionProgram) -> Outcome:
    with TemporaryDirectory() as name:
        folder = Path(name)
        [token] = tokens_for(folder, "ada")
        (folder / "skills.toml").write_text(SKILL, encoding="utf-8")
        with serving_http(folder, CONFIG) as server:
            relay = CuttingRelay(server.port, word=b"cut here", sign=b"last-event-id")
            with relay.running():
                return _play(client, relay, token, folder / "back")


def _play(client: SessionProgram, relay: CuttingRelay, token: str, back: Path) -> Outcome:
    marks = {"cancel": marker(), "give up": marker()}
    Thread(target=lambda: relay.back.wait(PATIENCE) and back.touch(), daemon=True).start()
    plan: dict[str, Any] = {"url": f"http://127.0.0.1:{relay.port}/mcp", "token": token, "era": client.era}
    plan["steps"] = plan_of(client, marks, back)
    done = subprocess.run(
        client.command, input=json.dumps(plan), env={"NODE_PATH": str(INSTALLED)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    outcome = Outcome({line["name"]: line for line in lines}, marks, relay.cut.is_set())
    assert "after" in outcome.steps, done.stdout + done.stderr
    return outcome


each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    assert INSTALLED.is_dir(), "run `make test-clients`, which installs the clients"


@each_client
def test_a_client_calls_every_tool_over_http(client: SessionProgram) -> None:
    outcome = outcome_of(client)
    assert set(outcome.steps["tools"]["tools"]) == {tool for tool, _, _ in EVERY_TOOL.values()}
    for step, (_, _, expected) in EVERY_TOOL.items():
        assert expected in outcome.text(step), step
        assert outcome.is_error(step) is ("ripgrep" in expected), step


@each_client
def test_a_client_gets_a_picture_whole(client: SessionProgram) -> None:
    blocks = outcome_of(client).steps["picture"]["result"]["content"]
    [picture] = [block for block in blocks if block["type"] == "image"]
    assert picture["mimeType"] == "image/png"
    assert base64.b64decode(picture["data"]) == PICTURE


@each_client
def test_a_client_hears_progress_and_then_gets_the_whole_answer(client: SessionProgram) -> None:
    outcome = outcome_of(client)
    assert any("first" in message for message in outcome.steps["progress"]["progress"])
    assert outcome.text("progress").startswith("first\nsecond\n[exit 3 in ")


@each_client
def test_a_commands_time_out_is_an_answer(client: SessionProgram) -> None:
    outcome = outcome_of(client)
    assert outcome.is_error("time-out")
    assert outcome.text("time-out").startswith("part\n")


@each_client
@pytest.mark.parametrize("step", ["cancel", "give up"])
def test_what_a_client_cancels_or_gives_up_is_killed_and_the_session_goes_on(client: SessionProgram, step: str) -> None:
    outcome = outcome_of(client)
    assert "error" in outcome.steps[step]
    mark = outcome.marks[step]
    if not client.sends_cancel:  # The command goes on, to its own time-out or the session's end.
        assert mark in outcome.text("look")
    assert eventually(lambda: not alive(mark))
    assert "[exit " in outcome.text("look")


@each_client
def test_a_person_is_asked_through_the_client(client: SessionProgram) -> None:
    outcome = outcome_of(client)
    assert outcome.text("accept").startswith("asked\n")
    assert "echo asked" in outcome.steps["accept"]["asked"][0]
    assert outcome.is_error("decline")
    assert "does not allow this" in outcome.text("decline")


@each_client
def test_a_client_that_loses_its_connection_comes_back_for_the_answer(client: SessionProgram) -> None:
    outcome = outcome_of(client)
    assert outcome.was_cut
    if client.comes_back:
        assert outcome.text("lost line").startswith("cut here\nover\n")
    else:  # In the later era a closed stream is a cancel.
        assert "error" in outcome.steps["lost line"]
