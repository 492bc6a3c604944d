"""The same client without `async`: each method runs the asynchronous one in a thread that has an event loop.

Types, arguments and docstrings are those of the asynchronous classes; there is no second implementation. What a program
leaves open is closed with its connection, and a connection that it leaves open, when the interpreter ends. Any thread
may use a connection; a process that was forked must make its own.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial, wraps
from pathlib import Path
from threading import Event, Thread
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from taskcell.client import COMMANDS_LINGER, cell, process, shell, task
from taskcell.client import connect as connect_async
from taskcell.client.failures import LostError

P = ParamSpec("P")
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741
B = TypeVar("B")
#: Seconds for what a program gives up by ^C to end: one request is closed for that.
GIVE_UP_TIMEOUT = 10.0


class Portal:
    """A thread with an event loop, and what is open there."""

    def __init__(self) -> None:
        self._process = os.getpid()
        # Not anyio's own context manager: taken apart in a forked process, that would wait for its thread for ever.
        made: Future[BlockingPortal] = Future()
        self._thread = Thread(target=anyio.run, args=(_stay, made), name="taskcell-client", daemon=True)
        self._thread.start()
        self._portal = made.result()
        self._entered: list[ExitStack] = []
        self._is_closed = False
        # Before the interpreter takes its objects apart: the thread runs no more then, and a call would wait for ever.
        atexit.register(self.close)

    def call(self, work: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Run a coroutine there, and wait for it; ^C ends it. Raises what it raises, and LostError."""
        self._check()
        ended = Event()

        async def run() -> R:
            try:
                return await work(*args)
            finally:
                ended.set()

        answer = self._portal.start_task_soon(run)
        try:
            return answer.result()
        except BaseException:
            # ^C reaches only the thread that waits; without this, what it gave up would go on.
            if answer.cancel():
                ended.wait(GIVE_UP_TIMEOUT)
            raise

    def start_task_soon(self, work: Callable[..., Awaitable[R]], *args: Any) -> Future[R]:
        """Run a coroutine there. Raises LostError."""
        self._check()
        return self._portal.start_task_soon(work, *args)

    def _check(self) -> None:
        """Raises LostError."""
        if os.getpid() != self._process:
            raise LostError("The connection is that of another process, from which this one was forked; connect again.")
        if self._is_closed:
            raise LostError("The connection was closed; connect again.")

    @contextmanager
    def entered(self, opened: AbstractAsyncContextManager[I]) -> Iterator[I]:
        """Enter a context there. It is left with this one, or with the connection, whichever ends first."""
        scopes: list[anyio.CancelScope] = []
        with ExitStack() as held:
            try:
                inner = held.enter_context(self._portal.wrap_async_context_manager(_cancellable(opened, scopes)))
            except KeyboardInterrupt:
                for scope in scopes:
                    self._portal.call(scope.cancel)
                raise
            self._entered.append(held)
            try:
                yield inner
            finally:
                with suppress(ValueError):
                    self._entered.remove(held)
                if os.getpid() != self._process:
                    held.pop_all()

    def close(self) -> None:
        """Leave what is open, the newest first, and end the thread. A forked process leaves all of it to its parent."""
        if os.getpid() != self._process or self._is_closed:
            return
        atexit.unregister(self.close)
        try:
            while self._entered:
                self._entered.pop().close()
        finally:
            self._is_closed = True
            self._portal.call(self._portal.stop, True)
            self._thread.join()


@asynccontextmanager
async def _cancellable(opened: AbstractAsyncContextManager[I], scopes: list[anyio.CancelScope]) -> AsyncIterator[I]:
    """Enter a context within a scope, which is added to `scopes`."""
    with anyio.CancelScope() as scope:
        scopes.append(scope)
        async with opened as inner:
            yield inner


async def _stay(made: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        made.set_result(portal)
        await portal.sleep_until_stopped()


class _Held(Protocol):
    """An object and the thread's portal."""

    portal: Portal
    inner: Any


class _Blocking:
    def __init__(self, portal: Portal, inner: Any) -> None:
        self.portal, self.inner = portal, inner

    def __repr__(self) -> str:
        return repr(self.inner)


def _call(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[_Held, P], R]:
    """Make a method that waits for a coroutine of the inner object."""

    @wraps(method)
    def call(self: _Held, /, *args: P.args, **named: P.kwargs) -> R:
        answer: R = self.portal.call(partial(method, self.inner, *args, **named))
        return answer

    return call


def _made(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, I]], outer: Callable[[Portal, I], B]
) -> Callable[Concatenate[_Held, P], B]:
    """As `_call`, for a coroutine that returns one of the client's objects."""

    @wraps(method)
    def call(self: _Held, /, *args: P.args, **named: P.kwargs) -> B:
        return outer(self.portal, self.portal.call(partial(method, self.inner, *args, **named)))

    return call


def _entered(
    method: Callable[Concatenate[Any, P], AbstractAsyncContextManager[I]], outer: Callable[[Portal, I], B]
) -> Callable[Concatenate[_Held, P], AbstractContextManager[B]]:
    """Make a context manager of an asynchronous one that yields one of the client's objects."""

    @contextmanager
    def enter(self: _Held, /, *args: P.args, **named: P.kwargs) -> Iterator[B]:
        async def begin() -> AbstractAsyncContextManager[I]:
            return method(self.inner, *args, **named)

        with self.portal.entered(self.portal.call(begin)) as inner:
            yield outer(self.portal, inner)

    return wraps(method)(enter)


def _plain(portal: Portal, inner: I) -> I:
    """An object without methods that wait is the same for both."""
    return inner


class RunningCommand(_Blocking):
    """As `taskcell.client.process.RunningCommand`."""

    wait = _call(process.RunningCommand.wait)
    write = _call(process.RunningCommand.write)
    close_stdin = _call(process.RunningCommand.close_stdin)
    signal = _call(process.RunningCommand.signal)
    kill = _call(process.RunningCommand.kill)

    @property
    def id(self) -> str:
        return str(self.inner.id)

    def __iter__(self) -> Iterator[process.OutputPiece]:
        outputs = aiter(self.inner)
        while (piece := self.portal.call(anext, outputs, None)) is not None:
            yield piece


class Shell(_Blocking):
    """As `taskcell.client.shell.Shell`."""

    run = _call(shell.Shell.run)
    write = _call(shell.Shell.write)
    interrupt = _call(shell.Shell.interrupt)


class Task(_Blocking):
    """As `taskcell.client.task.Task`."""

    run = _call(task.Task.run)
    start = _entered(task.Task.start, RunningCommand)
    shell = _entered(task.Task.shell, Shell)
    forward = _entered(task.Task.forward, _plain)
    read_bytes = _call(task.Task.read_bytes)
    write_bytes = _call(task.Task.write_bytes)
    upload = _call(task.Task.upload)
    download = _call(task.Task.download)
    upload_repository = _call(task.Task.upload_repository)
    diff = _call(task.Task.diff)
    list = _call(task.Task.list)
    status = _call(task.Task.status)
    reset = _call(task.Task.reset)
    snapshot = _call(task.Task.snapshot)
    restore = _call(task.Task.restore)
    close = _call(task.Task.close)

    def fork(self, to: str) -> Task:
        """As `taskcell.client.task.Task.fork`."""
        return Task(self.portal, self.portal.call(self.inner.fork, to))

    @property
    def id(self) -> str:
        return str(self.inner.id)


class Cell(_Blocking):
    """As `taskcell.client.cell.Cell`."""

    open = _made(cell.Cell.open, Task)
    tasks = _call(cell.Cell.tasks)

    def task(self, task_id: str) -> Task:
        return Task(self.portal, self.inner.task(task_id))


@contextmanager
def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    door: Path | str | None = None,
    config: Path | str | None = None,
    options: Sequence[str] = (),
    program: Path | str | None = None,
    linger: float = COMMANDS_LINGER,
) -> Iterator[Cell]:
    """As `taskcell.client.connect`."""
    portal = Portal()
    try:
        about = {"token": token, "door": door, "config": config, "options": options, "program": program}
        opened = portal.call(partial(_opened, url, linger=linger, **about))
        with portal.entered(opened) as inner:
            try:
                yield Cell(portal, inner)
            finally:  # before the connection itself is left
                portal.close()
    finally:
        portal.close()


async def _opened(*words: Any, **named: Any) -> AbstractAsyncContextManager[cell.Cell]:
    return connect_async(*words, **named)
