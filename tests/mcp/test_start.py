"""What a server imports before it answers its client's first request: not what only later requests need."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import pytest

from observe import eventually
from raw_client import MUST_END, command, raw_client

#: Nothing listens at the port of the second: the engine is away, and a call says so.
TOML = {
    "local": 'manifests = []\n[engine]\nkind = "local"\n',
    "docker": '[engine]\nkind = "docker"\nhost = "tcp://127.0.0.1:1"\n',
}
#: Packages that take long to import and that the first answer does not need.
HEAVY = {
    "jsonschema",
    "referencing",
    "docker",
    "requests",
    "urllib3",
    "tomlkit",
    "ruamel",
    "structlog",
    "rich",
    "websockets",
}
#: What a gateway is made of, and the commands beside `serve`.
OWN_HEAVY = {
    f"taskcell.{name}"
    for name in (
        *("gateway", "pool", "sandbox", "process", "skills", "tools", "schema", "supervisor", "deployment", "policy"),
        *(
            "profile",
            "egress",
            "audit",
            "images",
            "http",
            "auth",
            "files.run",
            "engine.base",
            "engine.docker",
            "engine.kubernetes",
        ),
        *("mcp.handlers", "mcp.tools", "mcp.tasks", "mcp.resources", "cli.exec", "cli.doctor", "cli.install"),
    )
}
IMPORTED = re.compile(rb"import time:\s+\d+ \|\s+\d+ \|\s+(\S+)")
INFO = {"name": "raw", "version": "1"}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO}


class Watched:
    """A server whose log goes where its answers go: every import that is done before an answer stands before it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        self.imported: set[str] = set()

    def say(self, method: str, **more: Any) -> None:
        self._input.write(json.dumps({"jsonrpc": "2.0", "method": method, **more}).encode() + b"\n")
        self._input.flush()

    def hear(self) -> dict[str, Any]:
        """The next message. `imported` then has every module that was imported before it, and the packages above."""
        for line in self._output:
            if line.startswith(b'{"jsonrpc"'):
                message: dict[str, Any] = json.loads(line)
                return message
            for found in IMPORTED.findall(line):
                names = found.decode().split(".")
                self.imported |= {".".join(names[: count + 1]) for count in range(len(names))}
        raise EOFError


@contextmanager
def watched(folder: Path, toml: str) -> Iterator[Watched]:
    python, *words = command(folder, toml)
    with subprocess.Popen(
        [python, "-X", "importtime", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
    ) as process:
        try:
            yield Watched(process)
        finally:
            process.communicate(timeout=MUST_END)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("kind", "later"), [("local", {"jsonschema"}), ("docker", {"jsonschema", "docker", "urllib3"})]
)
def test_the_first_answer_waits_for_no_package_that_later_requests_need(
    tmp_path: Path, kind: str, later: set[str]
) -> None:
    with watched(tmp_path, TOML[kind]) as server:
        server.say("initialize", id=1, params=HANDSHAKE)
        assert server.hear()["result"]["serverInfo"]["name"] == "taskcell"
        before = set(server.imported)
        server.say("notifications/initialized")
        server.say("tools/call", id=2, params={"name": "terminal", "arguments": {"command": "echo works"}})
        called = server.hear()["result"]
    assert called.get("isError", False) is (kind == "docker")
    assert ("No container engine answers at tcp://127.0.0.1:1" in str(called)) is (kind == "docker")
    assert "taskcell.mcp.server" in before
    assert before & (HEAVY | OWN_HEAVY) == set()
    assert "websockets" not in server.imported  # what a cluster alone needs
    # The same look finds what is imported later.
    assert later | {"taskcell.gateway.gateway", "taskcell.mcp.handlers", "structlog"} <= server.imported


def test_every_module_that_must_come_later_exists() -> None:
    assert all(find_spec(name) is not None for name in HEAVY | OWN_HEAVY)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('manifests = ["m.toml"]\n', "m.toml"),
        (
            '[[policy.rules]]\nname = "r"\ntool = "termnial"\neffect = "deny"\n',
            "the tool 'termnial', which does not exist",
        ),
        ('[workspace]\nfolder = "/etc"\n', "workspace.folder"),
        ('[audit]\npath = "m.toml/audit"\n', "audit.path cannot be written"),
    ],
    ids=["manifest", "rule", "folder", "audit"],
)
def test_what_keeps_a_server_from_serving_is_said_instead_of_the_first_answer(
    tmp_path: Path, more: str, sentence: str
) -> None:
    (tmp_path / "m.toml").write_text("[skills.broken]\nnonsense = true\n", encoding="utf-8")
    done = subprocess.run(
        command(tmp_path, more + TOML["docker"]),
        input=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE}).encode() + b"\n",
        capture_output=True,
        cwd=tmp_path,
        timeout=MUST_END,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert sentence in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_server_whose_client_says_nothing_begins_all_the_same(tmp_path: Path) -> None:
    with raw_client(tmp_path, TOML["local"]) as client:
        assert eventually(lambda: "Serving with these files." in client.log.read_text())
        client.end_input()
        assert client.exit_code() == 0
