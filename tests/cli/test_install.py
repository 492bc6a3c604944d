"""`taskcell install` and `uninstall`, and what the doctor says about the clients afterwards."""

from __future__ import annotations

import http.server
import json
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskcell import __version__
from taskcell.clients.catalog import CLIENTS
from taskcell.clients.program import engine_variables, find_program

Taskcell = Callable[..., Any]
PROGRAM = str(Path(sys.executable).parent / "taskcell")
TOKEN = "tc_a1b2c3d4e5"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def entry_of(home: Path, path: str = ".cursor/mcp.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / path).read_text())["mcpServers"]["taskcell"]
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_takes_the_server_and_gives_it_back(taskcell: Taskcell, home: Path, client: str) -> None:
    done = taskcell("install", client, environ={"HOME": str(home)})
    assert (done.code, done.err) == (0, "")
    [file] = [path for path in home.rglob("*") if path.is_file()]
    assert PROGRAM in file.read_text()
    assert str(file) in done.out
    assert CLIENTS[client].title in done.out
    again = taskcell("install", client, environ={"HOME": str(home)})
    assert (again.code, len(again.out.splitlines())) == (0, 1)
    gone = taskcell("uninstall", client, environ={"HOME": str(home)})
    assert gone.code == 0
    assert PROGRAM not in file.read_text()
    assert taskcell("uninstall", client, environ={"HOME": str(home)}).code == 0


def test_the_client_starts_the_installed_program_by_its_absolute_path_with_the_configuration_found_here(
    taskcell: Taskcell, home: Path, tmp_path: Path
) -> None:
    taskcell("install", "cursor", environ={"HOME": str(home)})
    assert entry_of(home) == {"command": PROGRAM, "args": ["serve", "--config", str(tmp_path / "taskcell.toml")]}
    (tmp_path / "taskcell.toml").unlink()
    taskcell("install", "cursor", toml=None, environ={"HOME": str(home)})
    assert entry_of(home) == {"command": PROGRAM, "args": ["serve"]}


def test_a_project_is_written_as_the_folder_that_the_server_works_on(
    taskcell: Taskcell, home: Path, tmp_path: Path
) -> None:
    environ = {"HOME": str(home)}
    (home / "project").mkdir()
    (tmp_path / "link").symlink_to(home / "project")
    for named in ("~/project", str(home / "project"), "link"):
        taskcell("install", "cursor", environ=environ)
        assert taskcell("install", "cursor", "--folder", named, environ=environ).code == 0
        assert entry_of(home)["args"][-2:] == ["--folder", str(home / "project")]
    taskcell("install", "cursor", environ=environ)
    assert "--folder" not in entry_of(home)["args"]


@pytest.mark.parametrize(("named", "why"), [("nowhere", "No such file"), ("taskcell.toml", "is not a folder")])
def test_a_project_that_is_not_there_is_not_handed_to_a_client(
    taskcell: Taskcell, home: Path, named: str, why: str
) -> None:
    done = taskcell("install", "cursor", "--folder", named, environ={"HOME": str(home)})
    assert (done.code, why in done.err) == (1, True)
    assert list(home.iterdir()) == []


def test_print_shows_what_belongs_in_the_file_and_writes_nothing(taskcell: Taskcell, home: Path) -> None:
    done = taskcell("install", "vscode", "--print", environ={"HOME": str(home)})
    assert json.loads(done.out)["servers"]["taskcell"]["command"] == PROGRAM
    assert str(home) in done.err
    assert list(home.iterdir()) == []


def test_a_shells_engine_is_the_clients_too_unless_its_address_has_a_password(taskcell: Taskcell, home: Path) -> None:
    shell = {"HOME": str(home), "DOCKER_HOST": "unix:///run/user/1000/docker.sock", "LS_COLORS": "x"}
    taskcell("install", "cursor", environ=shell)
    assert entry_of(home)["env"] == {"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}
    taskcell("install", "cursor", environ={"HOME": str(home)})
    assert "env" not in entry_of(home)
    assert engine_variables({"DOCKER_HOST": "tcp://ada:secret@host:2376", "DOCKER_CONTEXT": "a@b"}) == {
        "DOCKER_CONTEXT": "a@b"
    }


def test_a_wait_longer_than_the_clients_patience_is_cut_for_it_alone(taskcell: Taskcell, home: Path) -> None:
    toml = 'manifests = []\n[engine]\nkind = "local"\n[limits]\nwait = "100s"\n'
    for client in ("claude-desktop", "claude-code", "vscode"):
        assert taskcell("install", client, toml=toml, environ={"HOME": str(home)}).code == 0
    config = ".config/Claude/claude_desktop_config.json"
    if sys.platform == "darwin":
        config = "Library/Application Support/Claude/claude_desktop_config.json"
    assert entry_of(home, config)["env"] == {"TASKCELL__LIMITS__WAIT": "50s"}
    assert "env" not in entry_of(home, ".claude.json")


def test_a_wait_of_ones_own_is_written_checked_and_taken_out_again(taskcell: Taskcell, home: Path) -> None:
    environ = {"HOME": str(home)}
    assert taskcell("install", "cursor", "--wait", "4s", environ=environ).err == ""
    assert entry_of(home)["env"] == {"TASKCELL__LIMITS__WAIT": "4s"}
    long = taskcell("install", "cursor", "--wait", "90s", environ=environ)
    assert "gives a call up after 60 s" in long.err
    assert entry_of(home)["env"] == {"TASKCELL__LIMITS__WAIT": "90s"}
    wrong = taskcell("install", "cursor", "--wait", "soon", environ=environ)
    assert (wrong.code, "duration" in wrong.err) == (1, True)
    taskcell("install", "cursor", environ=environ)
    assert "env" not in entry_of(home)


def test_a_faulty_configuration_is_not_handed_to_a_client(taskcell: Taskcell, home: Path) -> None:
    done = taskcell("install", "cursor", toml="[limits]\nwiat = 3\n", environ={"HOME": str(home)})
    assert (done.code, "wiat" in done.err) == (1, True)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("source", ["file", "environ"])
def test_a_token_goes_into_the_file_and_nowhere_else(
    taskcell: Taskcell, home: Path, tmp_path: Path, source: str
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    words = ["--http", "https://cell.example/mcp"] + (["--token-file", "token"] if source == "file" else [])
    environ = {"HOME": str(home)} | ({} if source == "file" else {"TASKCELL_TOKEN": TOKEN})
    shown = taskcell("install", "cursor", *words, "--print", environ=environ)
    assert shown.code == 0
    assert list(home.iterdir()) == []
    done = taskcell("install", "cursor", *words, environ=environ)
    assert entry_of(home) == {"url": "https://cell.example/mcp", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    assert TOKEN not in shown.out + shown.err + done.out + done.err
    assert stat.S_IMODE((home / ".cursor" / "mcp.json").stat().st_mode) == 0o600


def test_a_token_that_anyone_on_the_way_can_read_is_told(taskcell: Taskcell, home: Path) -> None:
    environ = {"HOME": str(home), "TASKCELL_TOKEN": TOKEN}
    assert "not encrypted" in taskcell("install", "cursor", "--http", "http://10.0.0.5:8765/mcp", environ=environ).err
    for url in ("http://127.0.0.1:8765/mcp", "http://[::1]:8765/mcp", "https://cell.example/mcp"):
        assert taskcell("install", "cursor", "--http", url, environ=environ).err == ""


def test_a_token_in_a_file_that_other_users_may_read_is_told(taskcell: Taskcell, home: Path) -> None:
    environ = {"HOME": str(home), "TASKCELL_TOKEN": TOKEN}
    url = ("--http", "https://cell.example/mcp")
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text("{}")
    for mode, is_told in ((0o640, True), (0o604, True), (0o600, False)):
        file.chmod(mode)
        told = taskcell("install", "cursor", *url, environ=environ).err
        assert (str(file) in told, "chmod 600" in told, TOKEN in told) == (is_told, is_told, False)
    file.chmod(0o644)
    assert taskcell("install", "cursor", environ={"HOME": str(home)}).err == ""


@pytest.mark.parametrize("text", ["", "two words", "a\x00b", "ä"])
def test_what_is_not_a_token_is_refused_without_being_shown(
    taskcell: Taskcell, home: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "token").write_text(text)
    words = ("--http", "https://cell.example/mcp", "--token-file", "token")
    done = taskcell("install", "cursor", *words, environ={"HOME": str(home)})
    assert (done.code, "does not hold a token" in done.err) == (1, True)
    assert "two words" not in done.err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("emacs",),
        ("cursor", "--token-file", "x"),
        ("cursor", "--http", "cell.example/mcp"),
        ("cursor", "--http", "https://ada:secret@cell.example/mcp"),
        ("cursor", "--http", "https://[/mcp"),
        ("cursor", "--http", "https://cell.example/mcp", "--wait", "4s"),
        ("cursor", "--http", "https://cell.example/mcp", "--folder", "."),
        ("cursor", "--name", "a b"),
    ],
)
def test_bad_usage_is_exit_code_2_and_touches_nothing(taskcell: Taskcell, home: Path, words: tuple[str, ...]) -> None:
    done = taskcell("install", *words, environ={"HOME": str(home)})
    assert (done.code, done.out) == (2, "")
    assert list(home.iterdir()) == []


def test_claude_desktop_is_sent_to_its_connectors_for_a_server_at_a_url(taskcell: Taskcell, home: Path) -> None:
    done = taskcell("install", "claude-desktop", "--http", "https://cell.example/mcp", environ={"HOME": str(home)})
    assert (done.code, "Connectors" in done.err) == (1, True)


def test_a_path_that_a_client_would_read_as_a_variable_is_refused(
    taskcell: Taskcell, home: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "$HOME.toml"
    odd.write_text("manifests = []\n")
    done = taskcell("install", "gemini-cli", "--config", str(odd), environ={"HOME": str(home)})
    assert (done.code, "'$'" in done.err) == (1, True)


def test_a_second_server_of_another_name_stands_beside_the_first(taskcell: Taskcell, home: Path) -> None:
    environ = {"HOME": str(home)}
    taskcell("install", "codex", environ=environ)
    taskcell("install", "codex", "--name", "shop", "--wait", "9s", environ=environ)
    text = (home / ".codex" / "config.toml").read_text()
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        "[mcp_servers.taskcell]",
        "[mcp_servers.shop]",
        "[mcp_servers.shop.env]",
    ]


def test_the_program_is_found_by_its_absolute_path_whatever_the_variables(home: Path) -> None:
    assert str(find_program({"HOME": str(home)})) == PROGRAM


def checks(taskcell: Taskcell, home: Path) -> list[dict[str, str]]:
    rows = json.loads(taskcell("doctor", "--json", environ={"HOME": str(home)}).out)
    return [row for row in rows if row["check"] == "client"]


def test_the_doctor_starts_the_server_of_each_client_that_has_it(taskcell: Taskcell, home: Path) -> None:
    assert checks(taskcell, home) == []
    for client in ("cursor", "codex", "goose"):
        taskcell("install", client, environ={"HOME": str(home)})
    found = checks(taskcell, home)
    assert [row["status"] for row in found] == ["ok"] * 3
    assert all(f"has taskcell {__version__}" in row["detail"] for row in found)


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("taskcell", ["serve"], "not an absolute path"),
        ("/nowhere/taskcell", ["serve"], "is not there"),
        (PROGRAM, ["--version"], "does not answer as an MCP server"),
        (PROGRAM, ["serve", "--config", "/nowhere.toml"], "ends before it answers"),
    ],
)
def test_the_doctor_finds_a_server_that_a_client_cannot_start(
    taskcell: Taskcell, home: Path, command: str, args: list[str], said: str
) -> None:
    (home / ".cursor").mkdir()
    file = home / ".cursor" / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"taskcell": {"command": command, "args": args}}}))
    [row] = checks(taskcell, home)
    assert (row["status"], said in row["detail"]) == ("broken", True), row
    assert row["mend"] == "run `taskcell install cursor`."


def test_the_doctor_names_a_clients_file_that_cannot_be_read(taskcell: Taskcell, home: Path) -> None:
    (home / ".cursor").mkdir()
    (home / ".cursor" / "mcp.json").write_text("{")
    [row] = checks(taskcell, home)
    assert (row["status"], "mcp.json is not valid" in row["detail"]) == ("weak", True)


class Door(http.server.BaseHTTPRequestHandler):
    """Answers `initialize` to who has the token."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        info = {"serverInfo": {"name": "taskcell", "version": __version__}}
        body = b"event: message\ndata: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": info}).encode() + b"\n\n"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(body if known else b"")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def door() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/mcp"
        server.shutdown()


def test_the_doctor_asks_a_server_at_a_url_with_the_clients_token(taskcell: Taskcell, home: Path) -> None:
    with door() as url:
        for token, status in ((TOKEN, "ok"), (f"{TOKEN}x", "broken")):
            environ = {"HOME": str(home), "TASKCELL_TOKEN": token}
            assert taskcell("install", "codex", "--http", url, environ=environ).code == 0
            [row] = checks(taskcell, home)
            assert row["status"] == status, row
            assert TOKEN not in json.dumps(row)
    [row] = checks(taskcell, home)
    assert (row["status"], "no server answers" in row["detail"]) == ("broken", True)
