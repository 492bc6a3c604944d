"""What the models of real clients see of each tool's answer: the section of `docs/clients.md` is a recording of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from messages_api import MessagesApi

pytestmark = [pytest.mark.clients, pytest.mark.engine]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
PROGRAMS = ROOT / ".cache" / "clients" / "node_modules" / ".bin"
FRAMEWORKS = ROOT / ".cache" / "frameworks" / "bin" / "python"
TASKCELL = str(Path(sys.executable).parent / "taskcell")
PINS = ROOT / "tests" / "support" / "frameworks.txt"
#: Seconds for a client that starts with a cold cache on a busy machine, and makes a dozen calls.
PATIENCE = 180.0
#: A picture of one pixel.
DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)  # fmt: skip
Call = tuple[str, dict[str, Any]]
#: Each built-in tool, what it is asked, and what every model must see of its answer.
CALLS: list[tuple[Call, str]] = [
    (("terminal", {"command": "echo hello"}), "hello"),
    (("terminal", {"command": "echo no >&2; exit 3"}), "[exit 3 in"),
    (("write_file", {"path": "notes.txt", "content": "alpha\nbeta\n"}), "[Created '/workspace/notes.txt': 11 bytes]"),
    (("read_file", {"path": "notes.txt"}), "[Lines 1 to 2 of 2]"),
    (("edit_file", {"path": "notes.txt", "old": "beta", "new": "gamma"}), "[Changed 1 place in"),
    (("edit_file", {"path": "notes.txt", "old": "beta", "new": "gamma"}), "nothing was changed"),
    (("write_file", {"path": "dot.png", "content": DOT, "encoding": "base64"}), "70 bytes"),
    (("read_file", {"path": "dot.png"}), "image/png"),
    (("list_files", {}), "notes.txt"),
    (("search", {"pattern": "gam+a"}), "2:gamma"),
    (("process", {"action": "list"}), "[2 commands, 0 running]"),
    (("sandbox", {"action": "status"}), "ready"),
]
BEGIN = "<!-- recorded by `make test-clients` from here on -->"
END = "<!-- recorded up to here -->"
#: What differs from run to run, and what stands in its place.
_CHANCE = (
    (re.compile(r"\b(in|up) [\d.]+ s\b"), r"\1 0.1 s"),
    (re.compile(r"\b\d+ s old"), "1 s old"),
    (re.compile(r"[\d.?]+ MiB"), "5 MiB"),
    (re.compile(r"taskcell-[0-9a-f]{8}-terminal-[0-9a-f]{8}"), "taskcell-…-terminal-…"),
    (re.compile(re.escape(DOT)), "…"),
)


def server(folder: Path, more: str = "") -> list[str]:
    """The command line of a server that leaves no sandbox behind."""
    config = folder / "taskcell.toml"
    config.write_text(f'manifests = []\n[pool]\non_exit = "close"\n{more}')
    return [TASKCELL, "serve", "--config", str(config)]


def run(words: Sequence[str], folder: Path, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words, env={"HOME": str(folder), "PATH": os.environ["PATH"], **(environ or {})}, cwd=folder,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def of_claude_code(calls: Sequence[Call], command: Sequence[str], folder: Path) -> list[str]:
    assert PROGRAMS.is_dir(), "run `make test-clients`, which installs the clients"
    servers = folder / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {"taskcell": {"command": command[0], "args": command[1:]}}}))
    words = ("--mcp-config", str(servers), "--strict-mcp-config", "--allowedTools", "mcp__taskcell", "TaskList")
    with MessagesApi([(f"mcp__taskcell__{tool}", arguments) for tool, arguments in calls]) as api:
        environ = {
            "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "stand-in", "ENABLE_TOOL_SEARCH": "false",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }  # fmt: skip
        run((str(PROGRAMS / "claude"), "--print", "go", *words), folder, environ)
    return [", ".join(_parts(result)) for result in api.seen]


def _parts(result: dict[str, Any]) -> Iterator[str]:
    """The parts of a tool's result, as the API takes them."""
    if result.get("is_error"):
        yield "is_error"
    content = result["content"]
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        is_text = part["type"] == "text"
        yield json.dumps(part["text"], ensure_ascii=False) if is_text else f"a picture, {part['source']['media_type']}"


def of_framework(name: str, calls: Sequence[Call], command: Sequence[str], folder: Path) -> list[str]:
    assert FRAMEWORKS.is_file(), "run `make test-clients`, which installs the frameworks"
    program = ROOT / "tests" / "support" / "framework_views.py"
    printed = run((str(FRAMEWORKS), str(program), name, json.dumps(calls), *command), folder)
    views: list[str] = json.loads(printed.splitlines()[-1])
    return views


def views(calls: Sequence[Call], folder: Path, more: str = "") -> dict[str, list[str]]:
    """What each client's model sees of the answers to the calls, without what differs from run to run."""
    made: dict[str, list[str]] = {}
    for name in ("Claude Code", "pydantic-ai", "google-adk"):
        home = folder / name.replace(" ", "-").lower()
        home.mkdir(parents=True)
        command = server(home, more)
        seen = (
            of_claude_code(calls, command, home) if name == "Claude Code" else of_framework(name, calls, command, home)
        )
        assert len(seen) == len(calls), (name, seen)
        made[name] = [_steady(view) for view in seen]
    return made


def _steady(view: str) -> str:
    for pattern, instead in _CHANCE:
        view = pattern.sub(instead, view)
    return view


def versions() -> str:
    """Say which versions were installed."""
    package = json.loads((PROGRAMS.parent / "@anthropic-ai" / "claude-code" / "package.json").read_text())
    pins = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", PINS.read_text(), re.MULTILINE)
    adk, pydantic = (f"{name} {version}" for name, version in pins)
    return f"With Claude Code {package['version']}, {pydantic} and {adk}:\n"


def block(title: str, said: dict[str, str]) -> str:
    lines = [f"`{title}`", "", "```text"]
    for name, view in said.items():
        lines += textwrap.wrap(f"{name}: {view}", 116, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join([*lines, "```", ""])


def test_what_models_see_of_each_tools_answer_is_what_the_page_says(tmp_path: Path) -> None:
    calls = [call for call, _ in CALLS]
    seen = views(calls, tmp_path / "text")
    for name, texts in seen.items():
        for (call, words), text in zip(CALLS, texts, strict=True):
            assert words in text, (name, call, text)
    asked = [CALLS[2][0], CALLS[3][0]]
    fields = views(asked, tmp_path / "structured", "[tools]\nstructured = true\n")
    parts = [versions()]
    parts += [
        block(f"{tool} {_steady(json.dumps(arguments))}", {name: texts[at] for name, texts in seen.items()})
        for at, (tool, arguments) in enumerate(calls)
    ]
    parts.append("With `structured = true` below `[tools]`, which some clients' models then see instead of the text:\n")
    parts.append(block(f"{asked[1][0]} {json.dumps(asked[1][1])}", {name: texts[1] for name, texts in fields.items()}))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    new = "\n\n" + "\n".join(parts) + "\n"
    PAGE.write_text(f"{before}{BEGIN}{new}{END}{after}")
    assert new == old, "docs/clients.md had another recording and has this one now: look at what changed, and commit it"
