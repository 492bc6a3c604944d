"""Asks the person about a call that a policy rule wants confirmed, through the client: elicitation in both eras.

In the handshake's era the server sends the client a request while the call waits. In later ones the call is answered
with the question, and the client calls again with the answer, and a state that the SDK has sealed for this principal,
tool and arguments.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestedSchema,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.errors import ErrorCode, MustAsk, TaskcellError
from taskcell.log import Logger
from taskcell.mcp.principal import principal_of
from taskcell.text import visible

log = Logger(__name__)

Context = ServerRequestContext[Any, Any]

#: Seconds for the person to answer: enough to read a long command after having been called to the screen.
ANSWER_WITHIN = 600.0
#: Characters of a command that are shown; of a longer one, the beginning and the end.
SHOWN_COMMAND = 4000
#: Answers that are remembered, so that none counts twice; each for ANSWER_WITHIN.
MAX_USED = 10_000
#: The name of the only question, and what separates a rule's name from the question's own number.
_QUESTION, _SEPARATOR = "confirm", "\0"
#: Nothing to fill in: to accept is to allow.
SCHEMA: ElicitRequestedSchema = {"type": "object", "properties": {}}


class NotConfirmed(TaskcellError):
    """The person did not allow the call."""

    code = ErrorCode.DENIED


class Confirmation:
    """Asks, and takes each answer once."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, float] = OrderedDict()

    @staticmethod
    def boundary() -> RequestStateBoundary:
        """The SDK's middleware that seals the state of a question for this server's life, and opens it again."""
        security = RequestStateSecurity(keys=[os.urandom(32)], ttl=ANSWER_WITHIN, bind_principal=principal_of)
        return RequestStateBoundary(security, default_audience="taskcell")

    def confirmed(self, params: CallToolRequestParams) -> frozenset[str]:
        """Return the rule that the person has confirmed for this call, if it brings an answer. Raises NotConfirmed."""
        if params.request_state is None:
            return frozenset()
        rule, _, number = params.request_state.partition(_SEPARATOR)
        answer = (params.input_responses or {}).get(_QUESTION)
        if not isinstance(answer, ElicitResult):
            raise NotConfirmed(
                "The call brings no answer to the question that was asked about it; call again without it."
            )
        self.use(number)
        _check(answer)
        return frozenset({rule})

    def use(self, number: str) -> None:
        """Raise NotConfirmed if an answer was used before: it allows one call."""
        now = time.monotonic()
        while self._used and (len(self._used) > MAX_USED or next(iter(self._used.values())) < now - ANSWER_WITHIN):
            self._used.popitem(last=False)
        if number in self._used:
            raise NotConfirmed(
                "This answer was used for a call already; call again without it, and the person is asked."
            )
        self._used[number] = now

    async def ask(self, context: Context, asked: MustAsk) -> InputRequiredResult | frozenset[str]:
        """Ask the person; return the rule that is confirmed, or the question as the call's result.

        Raises NotConfirmed: the person says no, or does not answer in time; `asked`: the person cannot be asked.
        """
        if not can_ask(context):
            raise asked
        message = _message(asked)
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            question = ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=SCHEMA))
            state = f"{asked.rule}{_SEPARATOR}{secrets.token_hex(16)}"
            return InputRequiredResult(input_requests={_QUESTION: question}, request_state=state)
        try:
            answer = await self.elicit(context, message)
        except (NoBackChannelError, MCPError) as error:
            log.info("A client could not ask the person.", reason=str(error))
            raise asked from None
        _check(answer)
        return frozenset({asked.rule})

    @staticmethod
    async def elicit(context: Context, message: str) -> ElicitResult:
        """Ask through a client of the handshake's era.

        Raises NotConfirmed: no answer comes in time; NoBackChannelError, MCPError: the client cannot ask.
        """
        with anyio.move_on_after(ANSWER_WITHIN):
            return await context.session.elicit_form(message, SCHEMA, related_request_id=context.request_id)
        raise NotConfirmed("The person did not answer in time, so the call was not made.")


def can_ask(context: Context) -> bool:
    """Whether the client declares that it can ask the person."""
    capabilities = context.session.client_capabilities
    ways = None if capabilities is None else capabilities.elicitation
    return ways is not None and (ways.form is not None or ways.url is None)


def _check(answer: ElicitResult) -> None:
    if answer.action == "decline":
        raise NotConfirmed("The person was asked, and does not allow this; do the task in another way, or ask them.")
    if answer.action != "accept":
        raise NotConfirmed("The person was asked, and has not answered; the call was not made.")


def _message(asked: MustAsk) -> str:
    command = visible(asked.command)
    if len(command) > SHOWN_COMMAND:
        half = SHOWN_COMMAND // 2
        left_out = len(command) - 2 * half
        command = f"{command[:half]}\n[… {left_out} characters more …]\n{command[-half:]}"
    return f"Allow this call of '{asked.tool}' once?\n\n{command}\n\nThe rule '{asked.rule}' asks: {asked.reason}"
