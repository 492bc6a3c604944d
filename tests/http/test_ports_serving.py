"""Ports through a whole server over HTTP with tokens, and by the command `taskcell forward`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from http_serving import LOCAL, PATIENCE, TOKENS, HttpServer, read_all, serving_http, tokens_for
from taskcell.caller import Scope

pytestmark = pytest.mark.anyio

DOCKER = 'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n'
SERVER = "\n".join(
    (
        "import http.server, socketserver, sys",
        "class Hello(http.server.BaseHTTPRequestHandler):",
        "    def do_GET(self):",
        "        body = ('hello ' + str(self.headers['Authorization'])).encode()",
        "        self.send_response(200)",
        "        self.send_header('Content-Length', str(len(body)))",
        "        self.end_headers()",
        "        self.wfile.write(body)",
        "    def log_message(self, *args): pass",
        "server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Hello)",
        "print('port', server.server_address[1], flush=True)",
        "server.serve_forever()",
    )
)


async def start_server(server: HttpServer, token: str, task: str, said: list[str] | None = None) -> int:
    """Have a command of the task serve a page; return its port.

    Arguments:
        said: gets the notes of the answer that has the port.
    """
    async with server.client(token) as client:
        line = 'exec python3 -c "$CODE"'
        arguments = {"command": line, "env": {"CODE": SERVER}, "task_id": task, "background": True}
        started = await client.call_tool("terminal", arguments, meta={"taskcell/structured": True})
        assert started.structured_content is not None, started
        process = started.structured_content["process_id"]
        found = await client.call_tool(
            "process",
            {"action": "wait", "process_id": process, "task_id": task, "until": r"port \d+", "wait": PATIENCE},
            meta={"taskcell/structured": True},
        )
    assert found.structured_content is not None, found
    if said is not None:
        said += found.structured_content["notes"]
    return int(found.structured_content["stdout"].split()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpServer, list[str]]]:
    """A server, and tokens of ada, of bob, and one of ada's without the scope `ports`."""
    folder = tmp_path_factory.mktemp("ports")
    tokens = tokens_for(folder, "ada", "bob")
    tokens += tokens_for(folder, "ada", scopes=frozenset({Scope.TERMINAL}))
    with serving_http(folder, TOKENS) as server:
        yield server, tokens


async def test_a_port_is_its_principals_alone_and_needs_the_scope(served: tuple[HttpServer, list[str]]) -> None:
    server, (ada, bob, limited) = served
    port = await start_server(server, ada, "web")
    path = f"/ports/web/{port}/"
    status, headers, body = server.request(path=path, authorization=f"Bearer {ada}")
    assert (status, body) == (200, "hello None"), "the token went into the sandbox"
    assert headers["content-security-policy"].startswith("sandbox ")
    assert server.request(path=path)[0] == 401
    assert server.request(path=path, authorization=f"Bearer {limited}")[0] == 403
    assert server.request(path=path, authorization=f"Bearer {bob}")[0] == 404
    status, _, _ = server.request(path=path.rstrip("/"), authorization=f"Bearer {bob}", **UPGRADE)
    assert status == 404


async def test_a_page_of_a_sandbox_reaches_nothing_of_this_origin(served: tuple[HttpServer, list[str]]) -> None:
    """A sandboxed page has the origin `null`, which is refused with any token, and before it."""
    server, (ada, *_) = served
    for path in ("/mcp", "/files/web/x", "/ports/web/80/", "/healthz"):
        assert server.request("GET", path, origin="null", authorization=f"Bearer {ada}")[0] == 403


async def test_without_tokens_no_page_of_another_port_may_call_not_even_one_of_this_machine(tmp_path: Path) -> None:
    """A page of a forwarded port has an origin on loopback, and an agent wrote it."""
    allowed = LOCAL + '[http]\nallowed_origins = ["http://localhost:6274"]\n'
    with serving_http(tmp_path, allowed) as server:
        assert server.request(path="/healthz")[0] == 200
        assert server.request(path="/healthz", origin="http://127.0.0.1:8000")[0] == 403
        assert server.request(path="/healthz", origin="http://localhost:6274")[0] == 200
        assert server.request(path="/healthz", host="localhost:8765", origin="http://localhost:8765")[0] == 200
        assert server.request(path="/healthz", host="localhost:8765", origin="http://localhost:8766")[0] == 403
        assert server.request(path="/healthz", host="evil.example", origin="http://evil.example")[0] == 421


@contextmanager
def forwarded_to(server: HttpServer, token: str, port: int) -> Iterator[socket.socket]:
    """A connection that is forwarded to a port of the task `web`."""
    with server.connect() as forwarded:
        head = f"GET /ports/web/{port} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        forwarded.sendall(f"{head}Connection: upgrade\r\nUpgrade: taskcell-forward\r\n\r\n".encode())
        assert forwarded.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
        yield forwarded


async def test_the_server_ends_in_time_with_ports_in_use(tmp_path: Path) -> None:
    (ada,) = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        port = await start_server(server, ada, "web")
        with forwarded_to(server, ada, port) as forwarded:
            assert server.end() == 0
            assert read_all(forwarded) == b""


async def test_a_revoked_token_ends_its_connections(tmp_path: Path) -> None:
    from taskcell.auth.tokens import TokenFile

    (ada,) = tokens_for(tmp_path, "ada")
    with serving_http(tmp_path, TOKENS) as server:
        port = await start_server(server, ada, "web")
        with forwarded_to(server, ada, port) as forwarded:
            TokenFile(tmp_path / "tokens.json").revoke([ada.split("_")[1]])
            assert read_all(forwarded) == b""


@contextmanager
def forward(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`taskcell forward` beside the folder's server."""
    command = [sys.executable, "-m", "taskcell", "forward", *words, "--config", str(folder / "taskcell.toml")]
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.engine
async def test_the_command_says_where_it_listens_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with serving_http(tmp_path, DOCKER) as server:
        said_to_model: list[str] = []
        port = await start_server(server, "", "web", said_to_model)
        assert sum(f"`taskcell forward web {port}`" in note for note in said_to_model) == 1
        with forward(tmp_path, "web", f"{port}:0") as running:
            assert running.stdout is not None
            said = running.stdout.readline()
            assert said.endswith(f"to port {port} of web\n")
            place = said.split()[2]
            assert place.startswith("127.0.0.1:")
            with socket.create_connection(("127.0.0.1", int(place.split(":")[1])), PATIENCE) as page:
                page.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert read_all(page).endswith(b"hello None")
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=PATIENCE)
            assert (running.returncode, errors) == (130, "")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nobody", "8000"), 1, "No running server has the task 'nobody'"),
        (("web", "http"), 2, "is not PORT[:LOCAL]"),
        (("web", "0"), 2, "is not PORT[:LOCAL]"),
        (("web", "8000:70000"), 2, "is not PORT[:LOCAL]"),
    ],
)
async def test_bad_words_are_said_in_one_sentence(
    tmp_path: Path, words: tuple[str, str], code: int, sentence: str
) -> None:
    (tmp_path / "taskcell.toml").write_text(LOCAL)
    with forward(tmp_path, *words) as running:
        _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == code
    assert sentence in errors
    assert "Traceback" not in errors


UPGRADE = {"connection": "upgrade", "upgrade": "taskcell-forward"}
