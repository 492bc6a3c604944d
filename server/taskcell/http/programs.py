"""The routes for programs: `/tasks` and `/tools`. Commands run apart, with their output streamed as exact bytes.

Models never see these: what they can do stands in `tools/list`. Policy, audit, scopes and tenants are those of tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.caller import Caller
from taskcell.caller import Scope as TokenScope
from taskcell.deployment.opened import UNOPENED
from taskcell.errors import BadArgument, TaskcellError, UnknownTool
from taskcell.gateway.admission import Admission
from taskcell.gateway.gateway import Gateway
from taskcell.http.handing_on import HANDED_ON
from taskcell.http.mcp_endpoint import TooLarge, TooSlow, read_body
from taskcell.http.process_routes import NO_ROUTE, ProcessRoutes, allow, json_answer
from taskcell.http.refuse import error_answer, refused
from taskcell.http.shell_routes import ShellRoutes
from taskcell.http.sign_in import SignIn
from taskcell.http.tasks_elsewhere import tasks_elsewhere
from taskcell.http.terms import opening_fields, terms_of, wanted_labels
from taskcell.http.wanted import MAX_JSON
from taskcell.mcp.principal import STATE, missing
from taskcell.mcp.scopes import FOR_TERMINAL, check_arguments, scopes_of
from taskcell.model import TaskKey, ToolCall
from taskcell.schema.arguments import check_visible
from taskcell.schema.properties import MAX_TASK_ID

TASKS, TOOLS = "/tasks", "/tools/"


class Programs:
    """Serves `/tasks` and `/tools` for a caller that is signed in.

    Arguments:
        admission: counts commands and calls among the door's.
    """

    def __init__(self, gateway: Gateway, admission: Admission) -> None:
        self._gateway = gateway
        self._admission = admission
        self._processes = ProcessRoutes(gateway, admission)
        self._shells = ShellRoutes(gateway, admission)
        self.sign_in: SignIn | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive, send)
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Serve a request; return the answer that is still to be sent."""
        try:
            return await self._serve(scope, receive, send)
        except TooSlow:
            return error_answer(408, "The body did not come in time; send it again.")
        except TooLarge:
            return error_answer(413, f"The body has more than {MAX_JSON} bytes; send large data as a file or as stdin.")
        except ClientDisconnect:
            return None
        except TaskcellError as error:
            return refused(error)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Response | None:  # noqa: PLR0911
        caller: Caller = scope["state"][STATE]
        parts = [unquote(part, "utf-8", "surrogateescape") for part in scope["raw_path"].decode("ascii").split("/")[1:]]
        method = scope["method"]
        match parts:
            case ["tools", name]:
                allow(method, "POST")
                return await self._tool(caller, name, scope, receive)
            case ["tasks"]:
                allow(method, "GET")
                return await self._tasks(caller, scope)
        refusal = self._forbidden(caller, FOR_TERMINAL, scope)
        if refusal is not None:
            return refusal
        match parts:
            case ["tasks", task]:
                allow(method, "PUT")
                return await self._note(_key(caller, task), scope, receive)
            case ["tasks", task, "processes", *rest]:
                return await self._processes.serve(_key(caller, task), rest, scope, receive, send)
            case ["tasks", task, "shells", name, *rest] if rest in ([], ["commands"], ["stdin"], ["interrupt"]):
                allow(method, "POST")
                return await self._shells.serve(_key(caller, task), name, "".join(rest), scope, receive, send)
        return error_answer(404, NO_ROUTE)

    def _forbidden(self, caller: Caller, scopes: frozenset[TokenScope], scope: Scope) -> Response | None:
        if caller.may(scopes):
            return None
        assert self.sign_in is not None
        return self.sign_in.insufficient(scope, missing(scopes), scopes)

    async def _tasks(self, caller: Caller, scope: Scope) -> Response:
        """The caller's tasks that have a sandbox, labels or a lifetime; with `?label=…`, those with all of these."""
        wanted = wanted_labels(scope["query_string"])
        opened = await self._gateway.lifetimes.of(caller.principal)
        found: dict[str, list[dict[str, str]]] = {key.task: [] for key, one in opened.items() if one.labels or one.ends}
        for slot in self._gateway.pool.slots:
            if slot.task.principal == caller.principal:
                about = {"profile": slot.shared_key[1], "state": slot.state.value}
                found.setdefault(slot.task.task, []).append(about)
        tasks: dict[str, Mapping[str, Any]] = {}
        if HANDED_ON.decode() not in Headers(scope=scope):
            query, deployment = scope["query_string"].decode("latin-1"), self._gateway.pool.deployment
            tasks = {one["task_id"]: one for one in await tasks_elsewhere(deployment, caller, query)}
        for task, sandboxes in found.items():
            opening = opened.get(TaskKey(caller.principal, task), UNOPENED)
            if opening.labels.items() >= wanted.items():
                tasks[task] = {"task_id": task, "sandboxes": sandboxes, **opening_fields(opening)}
        return json_answer({"tasks": [tasks[task] for task in sorted(tasks)]})

    async def _note(self, task: TaskKey, scope: Scope, receive: Receive) -> Response:
        """Give a task labels, and a lifetime from now on."""
        labels, lifetime = terms_of(await read_body(scope, receive, MAX_JSON))
        await self._gateway.check_here(task)
        return json_answer(opening_fields(await self._gateway.lifetimes.note(task, labels, lifetime)))

    async def _tool(self, caller: Caller, name: str, scope: Scope, receive: Receive) -> Response:
        """Call a tool with the body's arguments, wait until it has ended, and answer its fields."""
        tool = self._gateway.tools.get(name)
        if tool is None:
            raise UnknownTool(f"There is no tool {name!r}.")
        refusal = self._forbidden(caller, scopes_of(tool), scope)
        if refusal is not None:
            return refusal
        try:
            arguments = json.loads(await read_body(scope, receive, MAX_JSON) or b"{}")
        except (ValueError, RecursionError):
            raise BadArgument("The body is not JSON in UTF-8.") from None
        if not isinstance(arguments, dict):
            raise BadArgument("The body must be an object of JSON: the tool's arguments.")
        check_arguments(caller, name, arguments)
        if isinstance(task := arguments.get("task_id"), str) and 0 < len(task) <= MAX_TASK_ID:
            await self._gateway.check_here(TaskKey(caller.principal, task))
        with self._admission.admitted(caller.principal):
            report = await self._gateway.call(ToolCall(caller.principal, name, arguments, hand_off=False))
        return json_answer({"is_error": report.is_error, "result": report.structured(), "said": report.said()})


def _key(caller: Caller, task: str) -> TaskKey:
    """Raises BadArgument."""
    if not 0 < len(task) <= MAX_TASK_ID:
        raise BadArgument(f"The name of a task has 1 to {MAX_TASK_ID} characters.")
    check_visible("task", task)
    return TaskKey(caller.principal, task)
