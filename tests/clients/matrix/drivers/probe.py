"""What every client does with a server, whichever library it is made of. It needs nothing but Python.

A driver gives `run_checks` its class `Client`, whose `run` hands calls of tools to the library's agent, with a model
that makes just these calls, and returns what the model was shown of each. For each check a line of JSON goes to
standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

#: Seconds for whatever must happen, on a machine that is busy with other things.
PATIENCE = 90.0
#: Seconds between two looks at something that cannot be awaited.
LOOK = 0.05
#: Seconds after which the client is made to give up: the next where the machine is too slow for one, since many
#: libraries give the server's start no more time than a call.
SHORT = (10.0, 30.0, 60.0)
#: Of a command that nobody waits for.
ENDLESS = "sleep 987"

#: Draws a picture with nothing but Python's own library.
PROGRAM = """
import struct, zlib

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

side = 64
rows = b"".join(b"\\0" + b"".join(bytes((x * 4, y * 4, 128)) for x in range(side)) for y in range(side))
header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
with open("picture.png", "wb") as file:
    file.write(b"\\x89PNG\\r\\n\\x1a\\n")
    file.write(chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
print("drawn", side)
"""
#: The tools without which none of the checks can be made.
NEEDED = {"terminal", "process", "read_file", "write_file"}

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What a model was shown of one call.

    Arguments:
        text: all the text, and the JSON of what is neither text nor a picture.
        pictures: how many pictures it can look at.
        fields: the structured content, where the library hands it to the program or the model.
    """

    text: str
    pictures: int = 0
    fields: Any = None


@dataclass(frozen=True)
class Server:
    """How the server is started, and where it leaves what happened."""

    command: str
    args: list[str]
    env: dict[str, str]
    folder: Path

    @classmethod
    def given(cls, **more: str) -> Server:
        """The server that the run of the matrix names, with more variables in its environment."""
        told = json.loads(os.environ["MATRIX_SERVER"])
        return cls(told["command"], told["args"], {**told["env"], **more}, Path(told["folder"]))

    def decided(self, command: str) -> int:
        """How many calls with this command have arrived, as the audit log has it."""
        log = self.folder / "state" / "taskcell" / "audit.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return sum(one["event"] == "decision" and one.get("command") == command for one in entries)

    def endings(self) -> list[str]:
        """What `launch.py` noted of each server."""
        return (self.folder / "exits").read_text(encoding="utf-8").splitlines()


class Client(Protocol):
    """What a driver gives. A check for which `gaps` has a reason is not made: the library has no such thing."""

    gaps: ClassVar[dict[str, str]]
    #: Seconds after which the library gives a call up by itself, read from the library; None: it waits for ever.
    default_timeout: ClassVar[float | None]
    #: When the library gives a call up, it cancels it at the server.
    cancels_what_it_gives_up: ClassVar[bool]

    @classmethod
    def connect(cls, server: Server, timeout: float | None) -> AbstractAsyncContextManager[Client]: ...

    async def tools(self) -> list[str]: ...

    async def run(self, *calls: Call) -> list[Seen]: ...

    async def follow(self, call: Call) -> list[str]: ...

    async def resources(self) -> list[str]: ...

    async def read(self, uri: str) -> str: ...


class Direct:
    """A client without an agent: its program calls tools by itself, and sees their results as the SDK has them.

    Arguments:
        session: what the program calls: a session or client of an SDK for Python.
    """

    gaps: ClassVar[dict[str, str]] = {}
    default_timeout: ClassVar[float | None] = None
    cancels_what_it_gives_up: ClassVar[bool] = True
    #: The argument of `call_tool` that takes what hears progress, and what else each call is made with.
    hears: ClassVar[str] = "progress_callback"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, session: Any) -> None:
        self._session = session

    async def tools(self) -> list[str]:
        return [tool.name for tool in _of(await self._session.list_tools(), "tools")]

    async def run(self, *calls: Call) -> list[Seen]:
        return [await self._one(name, arguments) for name, arguments in calls]

    async def _one(self, name: str, arguments: dict[str, Any], **more: Any) -> Seen:
        result = await self._session.call_tool(name, arguments, **self.options, **more)
        text = "\n".join(block.text for block in result.content if block.type == "text")
        pictures = sum(block.type == "image" for block in result.content)
        return Seen(text, pictures, _of(result, "structured_content", "structuredContent"))

    async def follow(self, call: Call) -> list[str]:
        said: list[str] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            said.append(message or "")

        await self._one(*call, **{self.hears: progress})
        return said

    async def resources(self) -> list[str]:
        return [str(one.uri) for one in _of(await self._session.list_resources(), "resources")]

    async def read(self, uri: str) -> str:
        [content] = _of(await self._session.read_resource(uri), "contents")
        return str(content.text)


def _of(result: Any, *names: str) -> Any:
    """What a result has under the first of these names; the result itself where a library has unpacked it."""
    return next((getattr(result, name) for name in names if hasattr(result, name)), result)


async def eventually(look: Callable[[], bool], what: str) -> None:
    """Wait until something holds. Raises AssertionError."""
    for _ in range(int(PATIENCE / LOOK)):
        if look():
            return
        await asyncio.sleep(LOOK)
    raise AssertionError(f"in {PATIENCE:.0f} s it did not happen: {what}")


#: What a model sends for what it has no use for, where a library lets it leave nothing out, by type.
NOTHING: dict[str, Any] = {"string": "", "array": [], "object": {}, "boolean": False, "number": 60, "integer": 1000}


def filled(properties: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments with a value for every property: the default that it declares, or as good as nothing."""
    return {
        name: arguments.get(name, one.get("default", NOTHING.get(str(one.get("type")))))
        for name, one in properties.items()
    }


def terminal(command: str, **more: Any) -> Call:
    return "terminal", {"command": command, **more}


async def _list(client: Client) -> str:
    names = await client.tools()
    assert set(names) >= NEEDED, names
    return f"{len(names)} tools"


async def _call(client: Client) -> str:
    [seen] = await client.run(terminal("echo out; echo err >&2; exit 3"))
    assert "out\nerr" in seen.text or "out\\nerr" in seen.text, seen
    return seen.text


async def _job(client: Client) -> str:
    calls = [("write_file", {"path": "draw.py", "content": PROGRAM}), terminal("python3 draw.py")]
    seen = await client.run(*calls, ("read_file", {"path": "picture.png"}))
    assert "drawn 64" in seen[1].text, seen
    assert len(seen) == 3
    return seen[2].text[:200]


async def _picture(client: Client) -> str:
    [seen] = await client.run(("read_file", {"path": "picture.png"}))
    assert seen.pictures == 1, seen
    return seen.text


async def _error(client: Client) -> str:
    calls = [("read_file", {"path": "no-such-file"}), terminal("echo and on")]
    refused, next_one = await client.run(*calls)
    assert re.search(r"no-such-file", refused.text), refused
    assert "and on" in next_one.text, next_one
    return refused.text


async def _progress(client: Client) -> str:
    said = await client.follow(terminal("for n in 1 2 3; do echo line $n; sleep 0.3; done"))
    assert any("line" in one for one in said), said
    return "; ".join(said)


async def _resources(client: Client) -> str:
    await client.run(terminal("echo content-of-a-file > listed.txt"))
    uris = await client.resources()
    [uri] = [uri for uri in uris if uri.endswith("listed.txt")]
    text = await client.read(uri)
    assert "content-of-a-file" in text, text
    return uri


async def _cancel(client: Client, server: Server) -> str:
    started = server.decided(ENDLESS)
    running = asyncio.create_task(client.run(terminal(ENDLESS)))
    await eventually(lambda: server.decided(ENDLESS) > started, "the call has arrived")
    running.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.done()
    await _nothing_runs(client)
    return "the command has ended"


async def _nothing_runs(client: Client) -> None:
    """Ask until the command is gone. Raises AssertionError."""
    said = ""
    for _ in range(int(PATIENCE)):
        said = await _said(client, terminal("pgrep -x sleep > /dev/null || echo nothing runs"))
        if "nothing runs" in said:
            return
        await asyncio.sleep(LOOK)
    raise AssertionError(f"the command goes on: {said}")


class TooSlow(Exception):
    """The machine is too slow for a client that gives up so soon."""


async def _time_out(client: type[Client], server: Server) -> str:
    """A client that gives up can go on, and the command ends if the client says so."""
    for timeout in SHORT:
        try:
            return await _give_up(client, server, timeout)
        except TooSlow as error:
            traceback.print_exception(error)
    raise AssertionError("no call works after one that was given up")


async def _give_up(client: type[Client], server: Server, timeout: float) -> str:
    started = server.decided(ENDLESS)
    async with _connect(client, server, timeout) as connected:
        said = await _said(connected, terminal(ENDLESS, wait=PATIENCE))
        if server.decided(ENDLESS) == started:
            raise TooSlow(said)
        assert "[running" not in said, said
        if "still here" not in await _said(connected, terminal("echo still here")):
            raise TooSlow("the next call")
        if client.cancels_what_it_gives_up:
            await _nothing_runs(connected)
    return said


async def _said(client: Client, call: Call) -> str:
    """What the model is shown, or the error that the program gets."""
    try:
        [seen] = await asyncio.wait_for(client.run(call), 2 * PATIENCE)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return seen.text


@asynccontextmanager
async def _connect(client: type[Client], server: Server, timeout: float) -> AsyncIterator[Client]:
    """A connection. Raises TooSlow where it cannot be made."""
    connection = client.connect(server, timeout)
    try:
        connected = await connection.__aenter__()
    except Exception as error:
        raise TooSlow("the connection") from error
    try:
        yield connected
    finally:
        await connection.__aexit__(None, None, None)


async def _structured(client: type[Client]) -> str:
    async with client.connect(Server.given(TASKCELL__TOOLS__STRUCTURED="true"), None) as connected:
        [seen] = await connected.run(terminal("exit 42"))
    assert isinstance(seen.fields, dict), seen
    assert seen.fields["exit_code"] == 42, seen
    return json.dumps(seen.fields)


async def _clean_exit(server: Server) -> str:
    """Every server ends, none by a signal.

    One whose client killed what had started it, because the machine is slow, ends all the same, and notes nothing.
    """
    notes = server.endings()
    started = [int(note.split()[1]) for note in notes if note.startswith("start")]
    await eventually(lambda: not any(map(_is_alive, started)), "every server has ended")
    codes = {note for note in server.endings() if note.startswith("exit")}
    assert not any(code.startswith("exit -") for code in codes), codes
    assert not codes or "exit 0" in codes, codes
    return f"{len(started)} servers"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def report(check: str, outcome: str, said: str) -> None:
    """Print a check's line: `held`, `gap` or `failed`, and what was seen."""
    print(json.dumps({"check": check, "outcome": outcome, "said": said[:1500]}), flush=True)


async def _make(client: type[Client], check: str, made: Callable[[], Awaitable[str]]) -> None:
    if check in client.gaps:
        report(check, "gap", client.gaps[check])
        return
    try:
        report(check, "held", await asyncio.wait_for(made(), 4 * PATIENCE))
    except Exception as error:
        traceback.print_exc()
        report(check, "failed", f"{type(error).__name__}: {error}")


async def _checks(client: type[Client]) -> None:
    server = Server.given()
    async with client.connect(server, None) as one:
        await _make(client, "list", lambda: _list(one))
        await _make(client, "call", lambda: _call(one))
        await _make(client, "job", lambda: _job(one))
        await _make(client, "picture", lambda: _picture(one))
        await _make(client, "error", lambda: _error(one))
        await _make(client, "progress", lambda: _progress(one))
        await _make(client, "resources", lambda: _resources(one))
        await _make(client, "cancel", lambda: _cancel(one, server))
    await _make(client, "structured", lambda: _structured(client))
    # Before the time-out: on a slow machine that client may give up a server which has only begun to start.
    await _make(client, "clean exit", lambda: _clean_exit(server))
    await _make(client, "time-out", lambda: _time_out(client, server))
    report("default time-out", "fact", json.dumps(client.default_timeout))


def run_checks(client: type[Client]) -> None:
    """Make all checks. The exit code is 1 if the driver itself breaks."""
    try:
        asyncio.run(_checks(client))
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)  # a library's threads must not keep a broken driver
    sys.stdout.flush()
