"""The command lines of real clients read what `install` wrote, and start the server that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ROOT / ".cache" / "clients" / "node_modules" / ".bin"
EXAMPLES = Path(__file__).parent / "examples"
TASKCELL = str(Path(sys.executable).parent / "taskcell")
#: Seconds for a client that starts with a cold cache on a busy machine, and gives servers ten seconds each.
PATIENCE = 120.0


class Machine:
    """A home folder with clients' files in it, and the programs that read them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"HOME": str(home), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
        self.config = home / "taskcell.toml"
        self.config.write_text('manifests = []\n[engine]\nkind = "local"\n')

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environ, cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def taskcell(self, *words: str) -> str:
        return self.run(TASKCELL, *words, "--config", str(self.config))

    def put(self, example: str, path: str) -> Path:
        file = self.home / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((EXAMPLES / example).read_bytes())
        return file


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    assert PROGRAMS.is_dir(), "run `make test-clients`, which installs the clients"
    return Machine(tmp_path)


def test_claude_code_connects_to_the_server_and_sees_it_go(machine: Machine) -> None:
    machine.put("claude-code.json", ".claude.json")
    machine.taskcell("install", "claude-code")
    shown = machine.run("claude", "mcp", "get", "taskcell")
    assert "Connected" in shown
    assert "User config" in shown
    assert "sentry" in machine.run("claude", "mcp", "list")
    machine.taskcell("uninstall", "claude-code")
    assert "taskcell" not in machine.run("claude", "mcp", "list")


def test_what_claude_code_writes_itself_is_what_install_writes(machine: Machine) -> None:
    words = ("serve", "--config", str(machine.config))
    machine.run("claude", "mcp", "add", "--scope", "user", "taskcell", "--", TASKCELL, *words)
    assert "already, just so" in machine.taskcell("install", "claude-code")


def test_gemini_cli_connects_to_the_server(machine: Machine) -> None:
    file = machine.put("gemini-cli.json", ".gemini/settings.json")
    trusting = '"security": {\n    "folderTrust": { "enabled": false },'
    file.write_text(file.read_text().replace('"security": {', trusting))
    machine.taskcell("install", "gemini-cli")
    [line] = [line for line in machine.run("gemini", "mcp", "list").splitlines() if "taskcell" in line]
    assert "Connected" in line
    machine.taskcell("uninstall", "gemini-cli")
    assert "taskcell" not in machine.run("gemini", "mcp", "list")


def codex_server(machine: Machine, name: str) -> Any:
    shown = machine.run("codex", "mcp", "get", name, "--json")
    return json.loads(shown[shown.index("{") : shown.rindex("}") + 1])


def test_codex_reads_the_server_with_its_time_outs(machine: Machine) -> None:
    machine.put("codex.toml", ".codex/config.toml")
    machine.taskcell("install", "codex", "--wait", "40s")
    found = codex_server(machine, "taskcell")
    assert found["transport"]["command"] == TASKCELL
    assert found["transport"]["args"] == ["serve", "--config", str(machine.config)]
    assert found["transport"]["env"] == {"TASKCELL__LIMITS__WAIT": "40s"}
    assert (found["enabled"], found["startup_timeout_sec"], found["tool_timeout_sec"]) == (True, 30.0, 300.0)
    assert codex_server(machine, "context7")["transport"]["command"] == "npx"


def test_codex_and_claude_code_read_a_server_at_a_url(machine: Machine) -> None:
    machine.environ["TASKCELL_TOKEN"] = "tc_0123456789"
    for client in ("codex", "claude-code"):
        machine.taskcell("install", client, "--http", "http://127.0.0.1:1/mcp")
    transport = codex_server(machine, "taskcell")["transport"]
    assert (transport["type"], transport["url"]) == ("streamable_http", "http://127.0.0.1:1/mcp")
    assert transport["http_headers"]["Authorization"]
    shown = machine.run("claude", "mcp", "get", "taskcell")
    assert "Type: http" in shown
    assert "Authorization" in shown


def test_gemini_cli_reads_a_server_at_a_url(machine: Machine) -> None:
    machine.environ["TASKCELL_TOKEN"] = "tc_0123456789"
    file = machine.put("gemini-cli.json", ".gemini/settings.json")
    trusting = '"security": {\n    "folderTrust": { "enabled": false },'
    file.write_text(file.read_text().replace('"security": {', trusting))
    machine.taskcell("install", "gemini-cli", "--http", "http://127.0.0.1:1/mcp")
    [line] = [line for line in machine.run("gemini", "mcp", "list").splitlines() if "taskcell" in line]
    assert "http://127.0.0.1:1/mcp (http)" in line


def test_codex_can_take_out_what_install_wrote(machine: Machine) -> None:
    file = machine.put("codex.toml", ".codex/config.toml")
    machine.taskcell("install", "codex")
    machine.run("codex", "mcp", "remove", "taskcell")
    assert "mcp_servers.taskcell" not in file.read_text()
    machine.taskcell("install", "codex")
    assert codex_server(machine, "taskcell")["enabled"]
