"""The MCP clients that taskcell can be installed into: where each keeps its servers, and how it writes one down.

Every row says what the client's own documentation says, on Linux and macOS; docs/clients.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskcell.clients.formats import JSON, JSONC, TOML, YAML, Format
from taskcell.errors import ConfigError

MACOS = "darwin"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one person on one machine.

    Arguments:
        environ: of the process.
        platform: as `sys.platform` has it.
    """

    environ: Mapping[str, str]
    platform: str

    @property
    def home(self) -> Path:
        """Raises ConfigError where the environment names no home folder."""
        home = Path(self.environ.get("HOME", ""))
        if not home.is_absolute():
            raise ConfigError("HOME names no folder, so no client's configuration can be found; set it and try again.")
        return home

    def named(self, variable: str, default: Path) -> Path:
        """The folder that a variable names, if it names an absolute one."""
        folder = Path(self.environ.get(variable, ""))
        return folder if folder.is_absolute() else default

    @property
    def config(self) -> Path:
        return self.named("XDG_CONFIG_HOME", self.home / ".config")

    @property
    def applications(self) -> Path:
        """Where desktop programs keep their settings."""
        return self.home / "Library" / "Application Support" if self.platform == MACOS else self.config


@dataclass(frozen=True, slots=True)
class Local:
    """A server that the client starts.

    Arguments:
        command: the program's absolute path.
        arguments: its arguments.
        environ: what it needs beside what the client gives every server.
    """

    command: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that runs already. `headers` may hold a secret."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """One MCP client.

    Arguments:
        name: for the command line.
        title: as people know it.
        file: where its servers are written down.
        format: of that file.
        servers: the key of the table of servers.
        local: an entry for a server that it starts.
        remote: an entry for a server at a URL; None where the file takes none.
        call_timeout: seconds after which it gives up a call, with the entry as it is written; None: far above an hour.
    """

    name: str
    title: str
    file: Callable[[Places], Path]
    format: Format
    servers: str
    local: Callable[[str, Local], dict[str, Any]]
    remote: Callable[[str, Remote], dict[str, Any]] | None
    call_timeout: float | None


#: Keys of an entry that say what server it is. What else a person wrote there (such as `disabled`) stays.
IDENTITY = frozenset(
    {"type", "command", "cmd", "args", "url", "serverUrl", "httpUrl", "uri", "headers", "http_headers", "source"}
)
#: Keys of an entry whose values may be secrets.
HEADERS = frozenset({"headers", "http_headers"})
#: Seconds that Goose and Codex are asked to wait for a call: as Goose waits by itself, and above Codex' own 60.
TOOL_TIMEOUT = 300
#: Seconds that Codex is asked to wait for the server's start. Its own 10 are short for a machine that has just started.
STARTUP_TIMEOUT = 30


def _filled(key: str, table: Mapping[str, str]) -> dict[str, Any]:
    return {key: dict(table)} if table else {}


def _stdio(name: str, server: Local) -> dict[str, Any]:
    return {"command": server.command, "args": list(server.arguments)} | _filled("env", server.environ)


def _typed_stdio(name: str, server: Local) -> dict[str, Any]:
    return {"type": "stdio", **_stdio(name, server)}


def _url(name: str, server: Remote) -> dict[str, Any]:
    return {"url": server.url} | _filled("headers", server.headers)


def _typed_url(name: str, server: Remote) -> dict[str, Any]:
    return {"type": "http", **_url(name, server)}


def _windsurf_url(name: str, server: Remote) -> dict[str, Any]:
    return {"serverUrl": server.url} | _filled("headers", server.headers)


def _gemini_url(name: str, server: Remote) -> dict[str, Any]:
    # Its `url` is for servers of the older transport by server-sent events.
    return {"httpUrl": server.url} | _filled("headers", server.headers)


def _codex_stdio(name: str, server: Local) -> dict[str, Any]:
    return {**_stdio(name, server), "startup_timeout_sec": STARTUP_TIMEOUT, "tool_timeout_sec": TOOL_TIMEOUT}


def _codex_url(name: str, server: Remote) -> dict[str, Any]:
    return {"url": server.url, "tool_timeout_sec": TOOL_TIMEOUT} | _filled("http_headers", server.headers)


def _goose_stdio(name: str, server: Local) -> dict[str, Any]:
    own = {"cmd": server.command, "args": list(server.arguments), "envs": dict(server.environ), "env_keys": []}
    return {"type": "stdio", **_goose(name), **own, "timeout": TOOL_TIMEOUT}


def _goose_url(name: str, server: Remote) -> dict[str, Any]:
    own = {"uri": server.url, "envs": {}, "env_keys": [], **_filled("headers", server.headers)}
    return {"type": "streamable_http", **_goose(name), **own, "timeout": TOOL_TIMEOUT}


def _goose(name: str) -> dict[str, Any]:
    return {"name": name, "description": "A hardened container for each task", "enabled": True}


def _claude_code(places: Places) -> Path:
    return places.named("CLAUDE_CONFIG_DIR", places.home) / ".claude.json"


def _lm_studio(places: Places) -> Path:
    """Its home folder may have been moved: then a file in the person's home names it."""
    try:
        named = Path((places.home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        named = Path()
    return (named if named.is_absolute() else places.home / ".lmstudio") / "mcp.json"


def _below_home(*parts: str) -> Callable[[Places], Path]:
    return lambda places: places.home.joinpath(*parts)


#: The time-out of the official SDKs in TypeScript and Rust clients, where a client sets none of its own.
_SDK = 60.0

CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-desktop",
            "Claude Desktop",
            lambda places: places.applications / "Claude" / "claude_desktop_config.json",
            JSON,
            "mcpServers",
            _stdio,
            None,
            _SDK,
        ),
        Client("claude-code", "Claude Code", _claude_code, JSON, "mcpServers", _typed_stdio, _typed_url, None),
        Client("cursor", "Cursor", _below_home(".cursor", "mcp.json"), JSONC, "mcpServers", _stdio, _url, _SDK),
        Client(
            "vscode",
            "VS Code",
            lambda places: places.applications / "Code" / "User" / "mcp.json",
            JSONC,
            "servers",
            _typed_stdio,
            _typed_url,
            300.0,
        ),
        Client(
            "windsurf",
            "Windsurf",
            _below_home(".codeium", "windsurf", "mcp_config.json"),
            JSONC,
            "mcpServers",
            _stdio,
            _windsurf_url,
            _SDK,
        ),
        Client(
            "zed",
            "Zed",
            lambda places: (
                (places.home / ".config" if places.platform == MACOS else places.config) / "zed" / "settings.json"
            ),
            JSONC,
            "context_servers",
            _stdio,
            _url,
            _SDK,
        ),
        Client(
            "goose",
            "Goose",
            lambda places: places.config / "goose" / "config.yaml",
            YAML,
            "extensions",
            _goose_stdio,
            _goose_url,
            float(TOOL_TIMEOUT),
        ),
        Client(
            "gemini-cli",
            "Gemini CLI",
            _below_home(".gemini", "settings.json"),
            JSONC,
            "mcpServers",
            _stdio,
            _gemini_url,
            600.0,
        ),
        Client(
            "codex",
            "Codex",
            lambda places: places.named("CODEX_HOME", places.home / ".codex") / "config.toml",
            TOML,
            "mcp_servers",
            _codex_stdio,
            _codex_url,
            float(TOOL_TIMEOUT),
        ),
        Client("lm-studio", "LM Studio", _lm_studio, JSON, "mcpServers", _stdio, _url, _SDK),
    )
}
