"""The Inspector's command line over HTTP, in both eras: lists, calls, pictures, and its own load test."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_serving import TOKENS, HttpServer, serving_http, tokens_for
from media import png

pytestmark = pytest.mark.clients

INSTALLED = Path(__file__).parent.parent.parent / ".cache/clients-http/node_modules"
#: Seconds for a start of the Inspector on a busy machine.
PATIENCE = 120.0


class Inspector:
    """Runs the Inspector against a server, each time as a new client."""

    def __init__(self, server: HttpServer, token: str, era: str) -> None:
        program = INSTALLED / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
        url = f"{server.url}/mcp"
        self._command = [
            *(str(INSTALLED / ".bin/node"), str(program), "--cli", "--server-url", url, "--transport", "http"),
            *("--header", f"Authorization: Bearer {token}", "--protocol-era", era, "--format", "json", "--quiet"),
        ]
        self._home = server.folder

    def __call__(self, method: str, *options: str) -> Any:
        done = subprocess.run(
            [*self._command, "--method", method, *options], env={"HOME": str(self._home)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)["result"]

    def call(self, tool: str, **arguments: Any) -> Any:
        return self("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))


@pytest.fixture(params=["legacy", "modern"])
def inspector(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Inspector]:
    assert INSTALLED.is_dir(), "run `make test-clients`, which installs the clients"
    [token] = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        yield Inspector(server, token, request.param)


def test_the_inspector_calls_tools_and_reads_what_they_left(inspector: Inspector) -> None:
    assert "terminal" in [tool["name"] for tool in inspector("tools/list", "--strict")["tools"]]
    picture = png(4, 4, lambda x, y: (x, y, 0))
    put = {"command": "base64 -d > p.png", "stdin": base64.b64encode(picture).decode()}
    assert "exit 0" in inspector.call("terminal", **put)["content"][-1]["text"]
    shown = inspector.call("read_file", path="p.png")["content"]
    assert [base64.b64decode(block["data"]) for block in shown if block["type"] == "image"] == [picture]
    [file] = [each for each in inspector("resources/list")["resources"] if each["uri"].endswith("/files/p.png")]
    assert base64.b64decode(inspector("resources/read", "--uri", file["uri"])["contents"][0]["blob"]) == picture
    assert {prompt["name"] for prompt in inspector("prompts/list")["prompts"]} == {"start-task", "review-task"}


def test_the_inspectors_load_test_loses_no_call(inspector: Inspector) -> None:
    load = ("--load", "--load-requests", "50", "--load-concurrency", "5")
    found = inspector("tools/call", "--tool-name", "terminal", "--tool-arg", "command=echo on", *load)
    assert (found["requests"], found["ok"], found["errors"], found["toolErrors"]) == (50, 50, 0, 0)
