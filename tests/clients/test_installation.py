"""A server in the configuration of each client: on files as their users have them."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from taskcell.clients.catalog import CLIENTS, Client, Local, Places, Remote
from taskcell.clients.config_file import ConfigFile
from taskcell.clients.installation import install, merged, servers, shown_alone, uninstall
from taskcell.clients.lines import with_member
from taskcell.errors import ConfigError

EXAMPLES = Path(__file__).parent / "examples"
PROGRAM = "/opt/task cell/bin/taskcell"
SERVER = Local(PROGRAM, ("serve", "--config", "/home/ada/päth/taskcell.toml"), {"DOCKER_HOST": "unix:///run/d.sock"})
TOKEN = "tc_0123456789"
REMOTE = Remote("https://cell.example/mcp", {"Authorization": f"Bearer {TOKEN}"})
BROKEN = {"JSON": '{"a": ', "JSON with comments": '{"a": /*', "TOML": "a = [", "YAML": "a: [1\nb: }"}

every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)
every_remote_client = pytest.mark.parametrize(
    "client", [client for client in CLIENTS.values() if client.remote], ids=lambda client: client.name
)


def places(home: Path, platform: str = "linux", **environ: str) -> Places:
    return Places({"HOME": str(home), **environ}, platform)


def example_of(client: Client) -> bytes:
    [file] = EXAMPLES.glob(f"{client.name}.*")
    return file.read_bytes()


def put(client: Client, home: Path, data: bytes) -> Path:
    path = client.file(places(home))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def forget_copies(path: Path) -> None:
    """So that a server is taken out of the text, and no copy of before is put back."""
    for copy in path.parent.glob(f"{path.name}.before-taskcell-*"):
        copy.unlink()


def local(client: Client) -> dict[str, Any]:
    return client.local("taskcell", SERVER)


def remote(client: Client) -> dict[str, Any]:
    assert client.remote is not None
    return client.remote("taskcell", REMOTE)


@pytest.mark.parametrize(
    ("client", "kind"),
    [(client, kind) for client in CLIENTS.values() for kind in ("local", "remote") if kind == "local" or client.remote],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_server_comes_into_a_real_file_and_nothing_else_in_it_changes(
    client: Client, kind: str, tmp_path: Path
) -> None:
    entry = local(client) if kind == "local" else remote(client)
    before = example_of(client).decode()
    path = put(client, tmp_path, example_of(client))
    outcome = install(client, places(tmp_path), "taskcell", entry)
    after = path.read_bytes().decode()
    assert (outcome.path, outcome.changed) == (path, True)
    expected = with_member(client.format.parse(before), (client.servers, "taskcell"), entry)
    assert client.format.parse(after) == expected
    left = iter(after.splitlines())
    # Every line of before is there, in its order; at most a comma was added to the last server's.
    assert [
        line for line in before.splitlines() if not any(line in (new, new.replace("},", "}")) for new in left)
    ] == []
    assert outcome.kept is not None
    assert outcome.kept.read_bytes().decode() == before


@every_client
def test_a_server_that_is_taken_out_leaves_the_file_byte_for_byte_as_it_was(client: Client, tmp_path: Path) -> None:
    path = put(client, tmp_path, example_of(client))
    install(client, places(tmp_path), "taskcell", local(client))
    forget_copies(path)
    outcome = uninstall(client, places(tmp_path), "taskcell")
    assert outcome.changed
    assert path.read_bytes() == example_of(client)


#: Files that have no table of servers, or an empty one, which a server's coming and going would leave behind or change.
WITHOUT_SERVERS = {
    "JSON": ["", "{}", "{}\n", '{\r\n\t"a": 1\r\n}\r\n', '\ufeff{"a": 1}\n\n', '{"SERVERS": {}}', '{"SERVERS": null}'],
    "JSON with comments": [
        "",
        "{ // c\n}",
        '{"a": 1, // c\n}\n',
        '{"SERVERS": {"a": {},}, }',
        '{"SERVERS": { /* c */ }}',
    ],
    "TOML": ["", "# c", "a = 1", "\ufeffa = 1\r\n\r\n", "[SERVERS]\n", "SERVERS = {}"],
    "YAML": ["", "# c\n", "a: 1", "---\na: 1\n...\n", "SERVERS: {}\n", "SERVERS: null # c\n", "\ufeffa: 1\r\n"],
}


@every_client
def test_a_file_without_servers_is_as_it_was_when_the_server_has_come_and_gone(client: Client, tmp_path: Path) -> None:
    for number, text in enumerate(WITHOUT_SERVERS[client.format.title]):
        home = tmp_path / str(number)
        data = text.replace("SERVERS", client.servers).encode()
        path = put(client, home, data)
        install(client, places(home), "taskcell", local(client))
        if client.remote:
            install(client, places(home), "taskcell", remote(client))
        uninstall(client, places(home), "taskcell")
        assert path.read_bytes() == data


@every_client
def test_a_copy_does_not_bring_back_what_has_changed_since(client: Client, tmp_path: Path) -> None:
    path = put(client, tmp_path, b"")
    install(client, places(tmp_path), "taskcell", local(client))
    install(client, places(tmp_path), "other", local(client))
    uninstall(client, places(tmp_path), "taskcell")
    assert client.format.parse(path.read_text()) == {client.servers: {"other": local(client)}}


@every_client
def test_the_second_time_changes_nothing_and_keeps_no_copy(client: Client, tmp_path: Path) -> None:
    path = put(client, tmp_path, example_of(client))
    install(client, places(tmp_path), "taskcell", local(client))
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir()))
    outcome = install(client, places(tmp_path), "taskcell", local(client))
    assert (outcome.changed, outcome.kept) == (False, None)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


@every_client
@pytest.mark.parametrize("data", [None, b"", b"\n"])
def test_a_file_that_is_not_there_or_empty_is_made(client: Client, data: bytes | None, tmp_path: Path) -> None:
    path = client.file(places(tmp_path)) if data is None else put(client, tmp_path, data)
    outcome = install(client, places(tmp_path), "taskcell", local(client))
    assert client.format.parse(path.read_text()) == {client.servers: {"taskcell": local(client)}}
    assert (outcome.kept is None) == (data is None)
    if data is None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shown_alone(client, "taskcell", local(client)).split() == path.read_text().split()


@every_client
def test_a_broken_file_is_refused_with_a_sentence_and_stays(client: Client, tmp_path: Path) -> None:
    for data in (BROKEN[client.format.title].encode(), b"\xff\xfe{\x00"):
        path = put(client, tmp_path, data)
        for change in (
            lambda: install(client, places(tmp_path), "taskcell", local(client)),
            lambda: uninstall(client, places(tmp_path), "taskcell"),
        ):
            with pytest.raises(ConfigError, match="stays as it is"):
                change()
        assert path.read_bytes() == data
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@every_client
def test_what_stands_in_place_of_the_servers_is_refused(client: Client, tmp_path: Path) -> None:
    texts = {"TOML": f"{client.servers} = 3\n", "YAML": f"{client.servers}: [a]\n"}
    path = put(client, tmp_path, texts.get(client.format.title, f'{{"{client.servers}": [1]}}').encode())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=client.servers):
        install(client, places(tmp_path), "taskcell", local(client))
    assert path.read_bytes() == before


@every_client
def test_what_a_person_added_to_the_entry_stays_when_it_is_written_anew(client: Client, tmp_path: Path) -> None:
    path = put(client, tmp_path, example_of(client))
    environ = "envs" if client.format.title == "YAML" else "env"
    theirs = local(client) | {"disabled": True, environ: {"MINE": "1", "TASKCELL__LIMITS__WAIT": "9s"}}
    install(client, places(tmp_path), "taskcell", theirs | {"cmd" if environ == "envs" else "command": "/old"})
    install(client, places(tmp_path), "taskcell", local(client))
    entry = servers(client, ConfigFile.read(path))["taskcell"]
    assert entry == local(client) | {"disabled": True, environ: {"MINE": "1", "DOCKER_HOST": "unix:///run/d.sock"}}


@every_remote_client
def test_a_server_at_a_url_takes_the_place_of_a_program_and_gives_it_back(client: Client, tmp_path: Path) -> None:
    path = put(client, tmp_path, example_of(client))
    install(client, places(tmp_path), "taskcell", local(client))
    install(client, places(tmp_path), "taskcell", remote(client))
    entry = servers(client, ConfigFile.read(path))["taskcell"]
    assert PROGRAM not in json.dumps(entry)
    assert TOKEN in json.dumps(entry)
    assert entry.keys() - remote(client).keys() <= {"startup_timeout_sec"}
    install(client, places(tmp_path), "taskcell", local(client))
    entry = servers(client, ConfigFile.read(path))["taskcell"]
    assert TOKEN not in json.dumps(entry)
    assert entry.keys() == local(client).keys()


@every_remote_client
def test_a_token_stays_when_the_same_url_is_written_without_one(client: Client) -> None:
    assert client.remote is not None
    old = client.remote("taskcell", REMOTE)
    assert merged(old, client.remote("taskcell", Remote(REMOTE.url, {}))) == old
    assert TOKEN not in json.dumps(merged(old, client.remote("taskcell", Remote("https://other.example/mcp", {}))))


def test_each_client_has_its_places_on_linux_and_on_macos(tmp_path: Path) -> None:
    def shown(platform: str, **environ: str) -> dict[str, str]:
        home = places(tmp_path, platform, **environ)
        return {name: client.file(home).relative_to(tmp_path).as_posix() for name, client in CLIENTS.items()}

    both = {
        "claude-code": ".claude.json",
        "cursor": ".cursor/mcp.json",
        "windsurf": ".codeium/windsurf/mcp_config.json",
        "zed": ".config/zed/settings.json",
        "goose": ".config/goose/config.yaml",
        "gemini-cli": ".gemini/settings.json",
        "codex": ".codex/config.toml",
        "lm-studio": ".lmstudio/mcp.json",
    }
    desktop, code = "Claude/claude_desktop_config.json", "Code/User/mcp.json"
    assert shown("linux") == both | {"claude-desktop": f".config/{desktop}", "vscode": f".config/{code}"}
    support = "Library/Application Support"
    assert shown("darwin") == both | {"claude-desktop": f"{support}/{desktop}", "vscode": f"{support}/{code}"}
    moved = shown(
        "linux", XDG_CONFIG_HOME=f"{tmp_path}/c", CLAUDE_CONFIG_DIR=f"{tmp_path}/d", CODEX_HOME=f"{tmp_path}/e"
    )
    assert {name: path for name, path in moved.items() if path != both.get(name)} == {
        "claude-desktop": f"c/{desktop}",
        "claude-code": "d/.claude.json",
        "vscode": f"c/{code}",
        "zed": "c/zed/settings.json",
        "goose": "c/goose/config.yaml",
        "codex": "e/config.toml",
    }


def test_lm_studios_moved_home_is_found(tmp_path: Path) -> None:
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/.cache/lm-studio\n")
    assert CLIENTS["lm-studio"].file(places(tmp_path)) == tmp_path / ".cache" / "lm-studio" / "mcp.json"


def test_without_a_home_folder_the_sentence_says_so() -> None:
    with pytest.raises(ConfigError, match="HOME"):
        CLIENTS["cursor"].file(Places({}, "linux"))


def test_permissions_stay_and_a_link_stays_a_link(tmp_path: Path) -> None:
    client = CLIENTS["cursor"]
    real = tmp_path / "dotfiles" / "mcp.json"
    real.parent.mkdir()
    real.write_text("{}")
    real.chmod(0o640)
    link = client.file(places(tmp_path))
    link.parent.mkdir()
    link.symlink_to(real)
    outcome = install(client, places(tmp_path), "taskcell", local(client))
    assert link.is_symlink()
    assert "taskcell" in real.read_text()
    assert outcome.kept is not None
    assert [stat.S_IMODE(path.stat().st_mode) for path in (real, outcome.kept)] == [0o640, 0o640]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_root_leaves_a_file_to_its_owner_and_makes_new_ones_for_the_folders(tmp_path: Path) -> None:
    client = CLIENTS["cursor"]
    folder = client.file(places(tmp_path)).parent
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    for _ in range(2):
        path = install(client, places(tmp_path), "taskcell", local(client)).path
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
        forget_copies(path)
    uninstall(client, places(tmp_path), "taskcell")


def test_a_file_that_another_program_changes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    file = ConfigFile.read(path)
    path.write_text('{"theirs": 1}')
    with pytest.raises(ConfigError, match="changed by another program"):
        file.replace('{"ours": 1}')
    assert path.read_text() == '{"theirs": 1}'
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".new")) == []


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    path = CLIENTS["cursor"].file(places(tmp_path))
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        install(CLIENTS["cursor"], places(tmp_path), "taskcell", local(CLIENTS["cursor"]))


def test_a_fifo_in_place_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    path = CLIENTS["cursor"].file(places(tmp_path))
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is not a regular file"):
        install(CLIENTS["cursor"], places(tmp_path), "taskcell", local(CLIENTS["cursor"]))


def test_copies_of_one_second_do_not_replace_each_other(tmp_path: Path) -> None:
    client = CLIENTS["cursor"]
    path = put(client, tmp_path, b'{"first": 1}')
    kept = set()
    for name in ("a", "b", "c"):
        outcome = install(client, places(tmp_path), name, local(client))
        assert outcome.kept is not None
        kept.add(outcome.kept)
    assert len(kept) == 3
    assert min(kept, key=lambda copy: copy.stat().st_size).read_bytes() == b'{"first": 1}'
    assert set(path.parent.iterdir()) == {path, *kept}


TOML_TEXTS = [
    'mcp_servers = { a = { command = "x" } }\n',
    '[mcp_servers]\na.command = "x"\n',
    'mcp_servers.a.command = "x"\n\n[tui]\nb = 1\n',
    '[mcp_servers.a]\ncommand = "x"\n[tui]\nb = 1\n[mcp_servers.c]\ncommand = "y"\n',
    'text = """\n[mcp_servers.taskcell]\n"""\n',
    "a = 1",
    "",
    "list = [\n  [1],\n]\r\n",
]


@pytest.mark.parametrize("text", TOML_TEXTS)
def test_any_way_to_write_toml_takes_a_server_and_gives_it_back(text: str, tmp_path: Path) -> None:
    client = CLIENTS["codex"]
    path = put(client, tmp_path, text.encode())
    install(client, places(tmp_path), "taskcell", local(client))
    expected = with_member(tomllib.loads(text), ("mcp_servers", "taskcell"), local(client))
    assert tomllib.loads(path.read_text()) == expected
    forget_copies(path)
    uninstall(client, places(tmp_path), "taskcell")
    after = tomllib.loads(path.read_text())
    assert after | {"mcp_servers": after.get("mcp_servers", {})} == {"mcp_servers": {}} | tomllib.loads(text)


YAML_TEXTS = [
    "extensions: {}\n",
    "extensions:\n",
    "GOOSE_MODE: auto",
    "extensions: {a: {cmd: x}}\n# end\n",
    "extensions:\n    a:\n        cmd: x\n        args:\n            - y\n# above b\nb: |\n  # text\n",
    "x: &anchor\n  a: 1\nextensions:\n  a:\n    <<: *anchor\n",
    "---\nextensions:\n  a:\n    cmd: x\n",
    "extensions:\r\n  a:\r\n    cmd: x\r\n",
]


@pytest.mark.parametrize("text", YAML_TEXTS)
def test_any_way_to_write_yaml_takes_a_server_and_gives_it_back(text: str, tmp_path: Path) -> None:
    client = CLIENTS["goose"]
    path = put(client, tmp_path, text.encode())
    before = YAML(typ="safe", pure=True).load(text)
    install(client, places(tmp_path), "taskcell", local(client))
    read = YAML(typ="safe", pure=True).load(path.read_bytes().decode())
    assert read == with_member(before, ("extensions", "taskcell"), local(client))
    assert all(line.strip() in path.read_text() for line in text.splitlines() if "#" in line)
    forget_copies(path)
    uninstall(client, places(tmp_path), "taskcell")
    after = YAML(typ="safe", pure=True).load(path.read_bytes().decode())
    assert after | {"extensions": after["extensions"] or {}} == before | {"extensions": before.get("extensions") or {}}
