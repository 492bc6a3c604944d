"""The shells of tasks that stay, by name: each belongs to the caller that opened it, and ends with that caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from taskcell.environment import TERMINAL
from taskcell.errors import BadArgument, TaskcellError, UnknownProcess
from taskcell.gateway.apart import Apart, WantedRun, apart, command_of
from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey
from taskcell.process.stdin import Input
from taskcell.sandbox.stay import ShellEnd, StayingShell, becoming, joined_pipes
from taskcell.supervisor.protocol import Stream
from taskcell.text import shown

#: Seconds for a caller that has left its shell to be noticed: its connection has closed by then.
NAME_PATIENCE = 5.0


class Shells:
    """The shells that are open at one server's door."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._open: dict[tuple[TaskKey, str], tuple[Apart, StayingShell]] = {}
        #: Of those that are open, and of those that are being opened.
        self._names: dict[tuple[TaskKey, str], anyio.Event] = {}

    @asynccontextmanager
    async def opened(self, task: TaskKey, name: str, wanted: WantedRun) -> AsyncIterator[Apart]:
        """Open a shell; it is killed, with everything in it, when this is left. Raises a TaskcellError.

        Arguments:
            wanted: its folder, variables and user.
        """
        key = (task, name)
        await self._wait_for_name(key)
        freed = self._names[key] = anyio.Event()
        try:
            async with self._started(task, wanted) as (run, shell):
                self._open[key] = (run, shell)
                try:
                    yield run
                finally:  # before what runs in it is killed, which takes a while
                    self._free(key, freed)
        finally:
            self._free(key, freed)

    async def _wait_for_name(self, key: tuple[TaskKey, str]) -> None:
        """Wait a moment for a name whose caller is going. Raises BadArgument."""
        with anyio.move_on_after(NAME_PATIENCE):
            while key in self._names:
                await self._names[key].wait()
        if key in self._names:
            raise BadArgument(f"The task has a shell {shown(key[1], 40)} already; give this one another name.")

    def _free(self, key: tuple[TaskKey, str], freed: anyio.Event) -> None:
        if self._names.get(key) is freed:
            del self._names[key]
            self._open.pop(key, None)
            freed.set()

    @asynccontextmanager
    async def _started(self, task: TaskKey, wanted: WantedRun) -> AsyncIterator[tuple[Apart, StayingShell]]:
        gateway, asked = self._gateway, replace(wanted, text="bash -i", stdin=None)
        await gateway.check_here(task)
        gateway.trail.begin()
        terminal = await gateway.tool_of(TERMINAL, task)
        authorized = gateway.authorize(command_of(terminal, task, replace(asked, argv=becoming(""))))
        async with (
            gateway.pool.lease(task, authorized.profile) as (sandbox, _),
            joined_pipes(sandbox, is_anybodys=bool(asked.user)) as (lines, folder),
            apart(gateway, task, replace(asked, argv=becoming(folder))) as run,
        ):
            if run.sandbox is not sandbox:
                raise TaskcellError("The task's sandbox was replaced at this moment; open the shell again.")
            shell = StayingShell(sandbox, run.process, lines, folder)
            await shell.begin()
            yield run, shell

    def _found(self, task: TaskKey, name: str) -> tuple[Apart, StayingShell]:
        found = self._open.get((task, name))
        if found is None:
            raise UnknownProcess(f"The task has no shell {shown(name, 40)}: it has ended, or was never opened.")
        return found

    async def run(
        self, task: TaskKey, name: str, wanted: WantedRun, emit: Callable[[Stream, bytes], Awaitable[None]]
    ) -> tuple[ShellEnd, Apart]:
        """Authorise a line and run it in a shell. Raises a TaskcellError, and what `emit` raises."""
        run, shell = self._found(task, name)
        self._gateway.trail.begin()
        self._gateway.authorize(command_of(await self._gateway.tool_of(TERMINAL, task), task, wanted))
        assert wanted.line is not None
        return await shell.run(wanted.line, wanted.timeout, emit), run

    async def interrupt(self, task: TaskKey, name: str) -> None:
        await self._found(task, name)[1].interrupt()

    def input(self, task: TaskKey, name: str) -> Input:
        return self._found(task, name)[0].process.input
