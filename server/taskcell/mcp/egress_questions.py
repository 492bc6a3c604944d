"""Asks the person, during a call, about hosts that the task's sandbox wants to reach: elicitation in both eras.

In the handshake's era the server sends the question while the call goes on. In later ones it can only be a call's
answer: the call then waits for its command no longer, and the client's next call, with the answer, waits for that very
command. Nothing runs twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import CallToolRequestParams, ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.destinations import Destination
from taskcell.egress.questions import Question, Questions
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.confirmation import SCHEMA, Confirmation, NotConfirmed, can_ask
from taskcell.model import DEFAULT_TASK, ProcessResult, Status, TaskKey, ToolCall
from taskcell.process.process import Process
from taskcell.text import shown
from taskcell.tools.process_calls import PROCESS
from taskcell.tools.process_report import ProcessReport
from taskcell.tools.tool import ToolReport, Watch

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
#: Runs a call; the argument is called with the process that it starts or inspects.
RunCall = Callable[[Watch], Awaitable[ToolReport]]
#: The name of the only question, and what begins the state of one and separates its parts. No policy rule begins so.
_QUESTION, _SEPARATOR = "egress", "\0"
_PARTS = 5
_NOT_ASKED = "cannot be asked: the client did not pass the question on"
#: Seconds that a program's call waits for a command to its end.
_TO_END = 3600.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call brings that answers a question.

    Arguments:
        process_id: the process that the interrupted call waited for; empty if the call is made anew.
    """

    process_id: str


class EgressQuestions:
    """Asks, for one server's calls."""

    def __init__(self, gateway: Gateway, confirmation: Confirmation) -> None:
        self._gateway = gateway
        self._confirmation = confirmation

    @property
    def _questions(self) -> Questions | None:
        egress = self._gateway.egress
        return None if egress is None else egress.questions

    # --- the answer of a later era -----------------------------------------------------------------------------

    def answered(self, call: ToolCall, params: CallToolRequestParams) -> Answered | None:
        """Take the answer that a call brings, if it brings one to a question about a host. Raises NotConfirmed."""
        parts = (params.request_state or "").split(_SEPARATOR)
        if self._questions is None or len(parts) != _PARTS or parts[0]:
            return None
        _, number, process_id, host, port = parts
        answer = (params.input_responses or {}).get(_QUESTION)
        if not isinstance(answer, ElicitResult):
            raise NotConfirmed("The call brings no answer to the question about a host; call again without its state.")
        self._confirmation.use(number)
        self._questions.answer(_task_of(call), Destination(host, int(port)), answer.action)
        return Answered(process_id)

    async def resumed(self, call: ToolCall, process_id: str, watch: Watch) -> ToolReport:
        """Wait for the command of a call that a question has interrupted. Raises a TaskcellError."""
        wait = call.arguments.get("wait") if call.hand_off else _TO_END
        chosen = {"action": "wait", "process_id": process_id, "task_id": _task_of(call).task, "wait": wait}
        waiting = ToolCall(call.principal, PROCESS, chosen)
        report = await self._gateway.tools[PROCESS].run(self._gateway, waiting, watch)
        assert isinstance(report, ProcessReport)
        return report.result or report

    # --- during a call -----------------------------------------------------------------------------------------

    async def during(
        self, context: Context, call: ToolCall, run: RunCall, process_id: str = ""
    ) -> ToolReport | InputRequiredResult:
        """Run a call, and ask what comes up meanwhile; return its report, or a question as its result.

        Arguments:
            process_id: the process that `run` waits for, if it starts none.
        """
        questions, task = self._questions, _task_of(call)
        if questions is None:
            return await run(_ignored)
        asks = can_ask(context)
        with questions.call(task, can_ask=asks):
            if not asks:
                return await run(_ignored)
            if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                return await self._beside(context, questions, task, run)
            return await _Interrupted(questions, task, call, process_id).made(run)

    async def _beside(self, context: Context, questions: Questions, task: TaskKey, run: RunCall) -> ToolReport:
        """Ask while the call goes on."""
        async with anyio.create_task_group() as asking:
            asking.start_soon(self._ask, context, questions, task)
            report = await run(_ignored)
            asking.cancel_scope.cancel()
        return report

    async def _ask(self, context: Context, questions: Questions, task: TaskKey) -> None:
        while True:
            question = await questions.next(task)
            try:
                answer = await self._confirmation.elicit(context, _message(question))
                questions.answer(task, question.to, answer.action)
            except NotConfirmed:
                questions.answer(task, question.to, "none")
            except (NoBackChannelError, MCPError) as error:
                log.info("A client could not ask the person.", reason=str(error))
                questions.fail(question, _NOT_ASKED)
            except Exception:  # whatever a client answers: its call goes on
                log.exception("A question about a host was not answered properly.")
                questions.fail(question, _NOT_ASKED)
            finally:
                questions.put_back(question)


@dataclass(slots=True)
class _Interrupted:
    """A call that a question interrupts. Arguments as in `during`."""

    questions: Questions
    task: TaskKey
    call: ToolCall
    process_id: str
    question: Question | None = None
    process: Process | None = None

    async def made(self, run: RunCall) -> ToolReport | InputRequiredResult:
        """Run the call; return its report, or the question."""
        report: ToolReport | None = None
        try:
            async with anyio.create_task_group() as asking:
                with anyio.CancelScope() as waiting:
                    asking.start_soon(self._watch_for, waiting)
                    report = await run(self._watch)
                asking.cancel_scope.cancel()
            if self.question is not None and (report is None or _goes_on(report)):
                started = report.process_id if isinstance(report, ProcessResult) else self.process_id
                asked, self.question = self.question, None
                return _asked(asked, started)
        finally:
            if self.question is not None:  # another call asks it
                self.questions.put_back(self.question)
        assert report is not None
        return report

    def _watch(self, process: Process) -> None:
        self.process = process
        if self.question is not None and self._starts_one:
            process.patience.cancel()

    @property
    def _starts_one(self) -> bool:
        """Whether the call starts a process, which must not be ended with it."""
        return self.call.tool != PROCESS and not self.process_id

    async def _watch_for(self, waiting: anyio.CancelScope) -> None:
        self.question = await self.questions.next(self.task)
        if not self._starts_one:
            if self.process_id or self.call.arguments.get("action") == "wait":
                waiting.cancel()
        elif self.process is not None:
            self.process.patience.cancel()


def _goes_on(report: ToolReport) -> bool:
    return isinstance(report, ProcessResult) and report.status is Status.RUNNING


def _ignored(process: Process) -> None:
    pass


def _task_of(call: ToolCall) -> TaskKey:
    task = call.arguments.get("task_id")
    return TaskKey(call.principal, task if isinstance(task, str) and task else DEFAULT_TASK)


def _message(question: Question) -> str:
    return (
        f"Allow the sandbox of the task {shown(question.task.task)} to reach {question.to}, for the rest of the task?"
        "\n\nA program there wants to connect. What reaches a host can send it anything, the task's files too."
    )


def _asked(question: Question, process_id: str) -> InputRequiredResult:
    form = ElicitRequest(params=ElicitRequestFormParams(message=_message(question), requested_schema=SCHEMA))
    parts = ("", secrets.token_hex(16), process_id, question.to.host, str(question.to.port))
    return InputRequiredResult(input_requests={_QUESTION: form}, request_state=_SEPARATOR.join(parts))
