"""Calls that other servers of the deployment have handed on to this one. They say what is to become of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from taskcell.mcp.passed_on import CANCEL
from taskcell.process.process import Process

T = TypeVar("T")


class HandedCall:
    """One call, whose command outlives the connection that it came by unless it is cancelled by a word."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope(shield=True)
        self._process: Process | None = None
        self._is_over = False

    def watch(self, process: Process) -> None:
        """Learn which process the call waits for."""
        self._process = process
        if self._is_over:
            process.patience.cancel()

    def answer(self) -> None:
        """Wait for nothing any more: what the call has started goes on."""
        self._is_over = True
        if self._process is not None:
            self._process.patience.cancel()

    def cancel(self) -> None:
        """Kill what the call has started."""
        self.scope.cancel()


class Handed:
    """The calls, by their principals and the names that their servers have given them."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], HandedCall] = {}

    def say(self, name: str, principal: str, word: str) -> bool:
        """Do what a server wants of a call of its client's; False where there is none."""
        call = self._calls.get((principal, name))
        if call is None:
            return False
        if word == CANCEL:
            call.cancel()
        else:
            call.answer()
        return True

    async def serve(self, name: str, principal: str, work: Callable[[HandedCall], Awaitable[T]]) -> T | None:
        """Serve a call to its end, whatever becomes of its connection. None where it was cancelled by a word."""
        found: list[T] = []
        failure: Exception | None = None
        key, call = (principal, name), HandedCall()
        self._calls[key] = call
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(_until_gone, call)
                with call.scope:
                    try:
                        found.append(await work(call))
                    except Exception as error:  # raised below: the task group would wrap it
                        failure = error
                beside.cancel_scope.cancel()
        finally:
            if self._calls.get(key) is call:  # a client may give two calls one name
                del self._calls[key]
        if failure is not None:
            raise failure
        return found[0] if found else None


async def _until_gone(call: HandedCall) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        call.answer()
