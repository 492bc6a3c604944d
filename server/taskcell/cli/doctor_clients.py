"""The doctor's check of MCP clients: whether each that has this server can start it, or reach it."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from taskcell import __version__
from taskcell.cli.doctor_checks import Check, Verdict
from taskcell.clients.catalog import CLIENTS, Client, Places
from taskcell.clients.config_file import ConfigFile
from taskcell.clients.installation import servers
from taskcell.clients.program import PROGRAM, bare_environment
from taskcell.errors import ConfigError

#: Seconds for a server to answer the first request. Clients wait ten to sixty.
INITIALIZE_TIMEOUT = 10.0
#: Seconds for a server to end after the end of its input: it promises five.
SERVER_END_TIMEOUT = 10.0
#: Bytes of one answer that are read.
_MAX_ANSWER = 1 << 20

_INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "taskcell doctor", "version": __version__},
        },
    }
).encode()


async def examine_clients(places: Places) -> list[Check]:
    """One check for each client that has this server, and for each file that cannot be read."""
    return [check for client in CLIENTS.values() async for check in _client(client, places)]


async def _client(client: Client, places: Places) -> AsyncIterator[Check]:
    try:
        file = ConfigFile.read(client.file(places))
        found = servers(client, file)
    except ConfigError as error:
        if places.environ.get("HOME"):
            yield Check("client", Verdict.WEAK, f"{client.title}: {error}")
        return
    for name, entry in _own(found):
        where = f"{client.title} ({file.path}, '{name}')"
        address = next((str(entry[key]) for key in ("url", "serverUrl", "httpUrl", "uri") if key in entry), None)
        try:
            if address is not None:
                said = await anyio.to_thread.run_sync(
                    _ask_url, address, entry.get("headers", entry.get("http_headers"))
                )
            else:
                said = await _start(entry, places)
        except ConfigError as error:
            mend = f"run `taskcell install {client.name}`" + ("" if name == PROGRAM else f" --name {name}")
            yield Check("client", Verdict.BROKEN, f"{where}: {error}", f"{mend}.")
            continue
        verdict = Verdict.GOOD if said.endswith(f" {__version__}") else Verdict.WEAK
        yield Check(
            "client", verdict, f"{where} has {said}.", "" if verdict is Verdict.GOOD else "it is another version."
        )


def _own(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries that are this server: by the program's name, or by the entry's."""
    for name, entry in found.items():
        if isinstance(entry, Mapping) and (name == PROGRAM or PurePath(_command(entry)).name == PROGRAM):
            yield name, entry


def _command(entry: Mapping[str, Any]) -> str:
    return str(entry.get("command") or entry.get("cmd") or "")


async def _start(entry: Mapping[str, Any], places: Places) -> str:
    """Start the server as a desktop program does, and return what it calls itself. Raises ConfigError."""
    command = _command(entry)
    if not PurePath(command).is_absolute():
        raise ConfigError(f"its command '{command}' is not an absolute path, and a desktop program finds no other.")
    if shutil.which(command) is None:
        raise ConfigError(f"{command} is not there or is not a program.")
    own = entry.get("env") or entry.get("envs") or {}
    try:
        process = await anyio.open_process(
            [command, *map(str, entry.get("args") or ())],
            env=bare_environment(places.environ, {key: str(value) for key, value in own.items()}),
            cwd=places.home if places.home.is_dir() else "/",
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise ConfigError(f"{command} cannot run: {error.strerror}.") from None
    async with process:
        try:
            with anyio.fail_after(INITIALIZE_TIMEOUT):
                return _name_in(await _first_answer(process))
        except TimeoutError:
            raise ConfigError(f"{command} does not answer within {INITIALIZE_TIMEOUT:.0f} seconds.") from None
        finally:
            await _end(process)


async def _first_answer(process: anyio.abc.Process) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    answer = b""
    try:
        await process.stdin.send(_INITIALIZE + b"\n")
        while b"\n" not in answer and len(answer) < _MAX_ANSWER:
            answer += await process.stdout.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise ConfigError("it ends before it answers; its log in the client tells why.") from None
    return answer.split(b"\n")[0]


async def _end(process: anyio.abc.Process) -> None:
    """End the server by the end of its input, as clients do."""
    with anyio.move_on_after(SERVER_END_TIMEOUT, shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        await process.wait()
    if process.returncode is None:
        process.kill()


def _ask_url(address: str, headers: object) -> str:
    """Ask the server at a URL for its name and return it. No redirection is followed: a token is for one host.

    Raises ConfigError, which never shows a header.
    """
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    own = {str(key): str(value) for key, value in headers.items()} if isinstance(headers, Mapping) else {}
    own |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=INITIALIZE_TIMEOUT)
        try:
            connection.request("POST", parts.path or "/", _INITIALIZE, own)
            answer = connection.getresponse()
            status = answer.status
            line = next((line for line in iter(answer.readline, b"") if b"{" in line), b"") if status == 200 else b""
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(f"no server answers at {address} ({type(error).__name__}); start it.") from None
    if status in (401, 403):
        raise ConfigError(f"the server at {address} does not take its token ({status}).")
    if status != 200:
        raise ConfigError(f"{address} answers {status}, so it is not an MCP server; correct the URL.")
    return _name_in(line.removeprefix(b"data:"))


def _name_in(answer: bytes) -> str:
    """The server's name and version, out of its answer to `initialize`. Raises ConfigError."""
    try:
        info = json.loads(answer)["result"]["serverInfo"]
        name, version = str(info["name"]), str(info["version"])
    except (ValueError, LookupError, TypeError):
        raise ConfigError("it does not answer as an MCP server does.") from None
    if name != PROGRAM:
        raise ConfigError(f"it starts another server, '{name[:64]}'.")
    return f"{name} {version[:64]}"
