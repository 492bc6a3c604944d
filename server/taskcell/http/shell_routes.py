"""The routes `/tasks/{task}/shells/{name}`: a bash that stays as long as the request that opened it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.errors import BadArgument, TaskcellError
from taskcell.gateway.admission import Admission
from taskcell.gateway.apart import WantedRun
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.shells import Shells
from taskcell.http.ended import ended_fields, while_connected
from taskcell.http.files import body_pieces
from taskcell.http.frames import FrameStream
from taskcell.http.listener import READER_PATIENCE
from taskcell.http.mcp_endpoint import read_body
from taskcell.http.wanted import MAX_JSON, OUTPUT_PATIENCE, json_object, line_of, run_timeout, wanted_of
from taskcell.model import TaskKey
from taskcell.process.result import EXIT_TIMED_OUT
from taskcell.schema.arguments import check_visible

#: Characters of a shell's name.
MAX_SHELL_NAME = 128
_COMMAND = {"line": "a text", "timeout": "a number of seconds, or null for none"}


class ShellRoutes:
    """Serves the routes for callers that may use the terminal. Arguments as those of `Programs`."""

    def __init__(self, gateway: Gateway, admission: Admission) -> None:
        self._gateway = gateway
        self._admission = admission
        self._shells = Shells(gateway)

    async def serve(  # noqa: PLR0917
        self, task: TaskKey, name: str, action: str, scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        """Serve a request; return the answer that is still to be sent. Raises a TaskcellError."""
        if not 0 < len(name) <= MAX_SHELL_NAME:
            raise BadArgument(f"The name of a shell has 1 to {MAX_SHELL_NAME} characters.")
        check_visible("name", name)
        await self._gateway.check_here(task)
        if action == "interrupt":
            await self._shells.interrupt(task, name)
            return Response(b"{}", media_type="application/json")
        if action == "stdin":
            return await self._stdin(task, name, scope, receive)
        body = await read_body(scope, receive, MAX_JSON)
        scope[READER_PATIENCE] = OUTPUT_PATIENCE
        stream = FrameStream(send)
        try:
            with self._admission.admitted(task.principal):
                if action == "commands":
                    await while_connected(receive, lambda: self._command(task, name, body, stream))
                else:
                    await while_connected(receive, lambda: self._open(task, name, body, stream))
        except TaskcellError as error:
            if not stream.has_begun:
                raise
            await stream.end({"error": {**error.fields(), "message": str(error)}})
        return None

    async def _open(self, task: TaskKey, name: str, body: bytes, stream: FrameStream) -> None:
        """Open a shell, and stay until it has ended."""
        wanted = wanted_of(json.dumps({**json.loads(body or b"{}"), "line": ""}).encode())
        async with self._shells.opened(task, name, replace(wanted, line=None)) as run:
            await stream.begin({"process_id": run.record.about.process_id, "notes": list(run.notes)})
            await run.process.over()
        await stream.end(ended_fields(run))

    async def _command(self, task: TaskKey, name: str, body: bytes, stream: FrameStream) -> None:
        fields = json_object(body, _COMMAND)
        line = line_of(fields.get("line"))
        wanted = WantedRun(line=line, text=line, timeout=run_timeout(fields))
        begun = anyio.current_time()

        async def emit(kind: Any, data: bytes) -> None:
            if not stream.has_begun:
                await stream.begin({})
            await stream.output(kind, data)

        end, run = await self._shells.run(task, name, wanted, emit)
        if not stream.has_begun:
            await stream.begin({})
        if end.code is None:
            await run.process.over()
            await stream.end({**ended_fields(run), "shell_ended": True})
            return
        code, status = (EXIT_TIMED_OUT, "timed_out") if end.timed_out else (end.code, "exited")
        spent = round((anyio.current_time() - begun) * 1000)
        fields = {"status": status, "exit_code": code, "signal": None, "duration_ms": spent, "survivors": 0}
        await stream.end({**fields, "alive": None, "shell_ended": False})

    async def _stdin(self, task: TaskKey, name: str, scope: Scope, receive: Receive) -> Response:
        """Pass the body on to whatever reads the shell's input; with `?end=1` nothing comes after it."""
        given, size = self._shells.input(task, name), 0
        async for data in body_pieces(receive):
            size += await given.write(data, OUTPUT_PATIENCE)
        if dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("end") == "1":
            await given.close(OUTPUT_PATIENCE, is_terminal=False)
        return Response(json.dumps({"size": size}), media_type="application/json")
