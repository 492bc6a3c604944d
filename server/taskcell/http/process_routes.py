"""The routes `/tasks/{task}/processes`: commands whose output is streamed, and taken up where a connection broke."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.errors import BadArgument, ReadElsewhere, SandboxLost, TaskcellError, UnknownProcess
from taskcell.gateway.admission import Admission, EndedByServer
from taskcell.gateway.apart import Apart, apart, read_by_one, taken_up
from taskcell.gateway.gateway import Gateway
from taskcell.http.ended import ended_fields, serve_beside, while_connected
from taskcell.http.files import body_pieces
from taskcell.http.frames import FrameStream
from taskcell.http.listener import READER_PATIENCE
from taskcell.http.mcp_endpoint import read_body
from taskcell.http.refuse import error_answer
from taskcell.http.wanted import MAX_JSON, OUTPUT_PATIENCE, wanted_of
from taskcell.model import TaskKey
from taskcell.process.held import HeldProcess
from taskcell.process.process import Totals
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor.protocol import Reason
from taskcell.tools.process_calls import find_process

#: Seconds for a process to take a piece of its input; it is asked again until it ends.
INPUT_TURN = 3600.0
NO_ROUTE = "There is no such route; docs/programs.md lists them."


class ProcessRoutes:
    """Serves the routes for callers that may use the terminal. Arguments as those of `Programs`."""

    def __init__(self, gateway: Gateway, admission: Admission) -> None:
        self._gateway = gateway
        self._admission = admission

    async def serve(
        self, task: TaskKey, rest: Sequence[str], scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        """Serve a request; return the answer that is still to be sent. Raises a TaskcellError."""
        method = scope["method"]
        match rest:
            case []:
                allow(method, "POST")
                await self._run(task, scope, receive, send)
                return None
            case [process] if method == "DELETE":
                return await self._kill(task, process)
            case [process]:
                allow(method, "GET")
                await self._take_up(task, process, scope, receive, send)
                return None
            case [process, "stdin"]:
                allow(method, "POST")
                return await self._stdin(task, process, scope, receive)
        return error_answer(404, NO_ROUTE)

    async def _run(self, task: TaskKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a command until it ends or the client goes, which kills it unless it lingers."""
        wanted = wanted_of(await read_body(scope, receive, MAX_JSON))

        async def serve(stream: FrameStream) -> None:
            async with apart(self._gateway, task, wanted) as run:
                if not wanted.linger:
                    await _stream(run, stream)
                    return
                async with read_by_one(self._gateway, task, run):
                    await _stream(run, stream)

        await self._answer(task, scope, receive, send, serve)

    async def _take_up(self, task: TaskKey, process_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on with a command that lingers, from as many bytes on as the client has."""
        offsets = _offsets(scope["query_string"])

        async def serve(stream: FrameStream) -> None:
            async with taken_up(self._gateway, task, process_id) as run, read_by_one(self._gateway, task, run):
                await run.process.begin_at(offsets)
                await _stream(run, stream)

        await self._answer(task, scope, receive, send, serve)

    async def _answer(
        self,
        task: TaskKey,
        scope: Scope,
        receive: Receive,
        send: Send,
        serve: Callable[[FrameStream], Awaitable[None]],
    ) -> None:
        """Raises TaskcellError before the first frame; later ones are the last frame."""
        scope[READER_PATIENCE] = OUTPUT_PATIENCE
        stream = FrameStream(send)
        try:
            with self._admission.admitted(task.principal):
                await while_connected(receive, lambda: serve(stream))
        except TaskcellError as error:
            if not stream.has_begun:
                raise
            last = ReadElsewhere() if isinstance(error, EndedByServer) and stream.lingers else error
            await stream.end({"error": {**last.fields(), "message": str(last)}})

    async def _kill(self, task: TaskKey, process_id: str) -> Response:
        """Kill a command with everything that it started, as when a client goes."""
        sandbox, process = await self._found(task, process_id)
        if not process.has_ended:
            await sandbox.kill(process, Reason.CANCEL)
        return json_answer({})

    async def _stdin(self, task: TaskKey, process_id: str, scope: Scope, receive: Receive) -> Response:
        """Pass the body on to a process as it comes; with `?end=1` nothing comes after it."""
        at_end = "1" in parse_qs(scope["query_string"].decode("latin-1")).get("end", ())
        _, process = await self._found(task, process_id)
        if process.is_inherited:
            raise SandboxLost(
                "The server that had this command has ended, and how much of its input came is not known: it takes no "
                "more. Its output goes on; kill it, and run it again if it needs more."
            )
        size = 0
        async for data in body_pieces(receive):
            given = 0
            while given < len(data) and not process.has_ended:
                given += await process.input.write(data[given:], INPUT_TURN)
            size += given
        while at_end and not process.has_ended and not await process.input.close(INPUT_TURN, is_terminal=False):
            pass
        return json_answer({"size": size})

    async def _found(self, task: TaskKey, process_id: str) -> tuple[Sandbox, HeldProcess]:
        """Raises UnknownProcess."""
        await self._gateway.check_here(task)
        sandbox, record = await find_process(self._gateway.pool, task, process_id)
        if not isinstance(record.process, HeldProcess):
            raise UnknownProcess("That process was not started here; the tool `process` is for those of tools.")
        return sandbox, record.process


async def _stream(run: Apart, stream: FrameStream) -> None:
    """Send a command's output and its end. Raises TaskcellError, also when the output breaks off."""
    about, process = run.record.about, run.process
    stream.lingers = bool(about.linger)
    await stream.begin({"process_id": about.process_id, "notes": list(run.notes)})
    if process.input.is_fed:
        await _pass_on(run, stream)
    else:
        await serve_beside(lambda _: process.input.feed(), lambda: _pass_on(run, stream))
    await stream.end(ended_fields(run))


async def _pass_on(run: Apart, stream: FrameStream) -> None:
    while (piece := await run.process.receive()) is not None:
        await stream.output(*piece)


def _offsets(query: bytes) -> Totals:
    """Raises BadArgument."""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    out, err = [given.get(name, ["0"])[-1] for name in ("stdout", "stderr")]
    if not all(one.isascii() and one.isdigit() and len(one) < 19 for one in (out, err)):
        raise BadArgument("'stdout' and 'stderr' are how many bytes of each stream you have.")
    return int(out), int(err)


def allow(method: str, allowed: str) -> None:
    """Raise BadArgument for another method of HTTP than the one that a route serves."""
    if method != allowed:
        raise BadArgument(f"Only {allowed} is served at this path.")


def json_answer(fields: dict[str, Any]) -> Response:
    """Answer a request with an object."""
    return Response(json.dumps(fields, separators=(",", ":")), media_type="application/json")
