"""The same client without `async`: each method runs the asynchronous one in a thread that has an event loop.

Types, arguments and docstrings are those of the asynchronous classes; there is no second implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from taskcell.client import cell, process, shell, task
from taskcell.client import connect as connect_async

P = ParamSpec("P")
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741
B = TypeVar("B")


class _Held(Protocol):
    """An object and the thread's portal."""

    portal: BlockingPortal
    inner: Any


class _Blocking:
    def __init__(self, portal: BlockingPortal, inner: Any) -> None:
        self.portal, self.inner = portal, inner


def _call(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[_Held, P], R]:
    """Make a method that waits for a coroutine of the inner object."""

    @wraps(method)
    def call(self: _Held, /, *args: P.args, **named: P.kwargs) -> R:
        answer: R = self.portal.call(partial(method, self.inner, *args, **named))
        return answer

    return call


def _made(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, I]], outer: Callable[[BlockingPortal, I], B]
) -> Callable[Concatenate[_Held, P], B]:
    """As `_call`, for a coroutine that returns one of the client's objects."""

    @wraps(method)
    def call(self: _Held, /, *args: P.args, **named: P.kwargs) -> B:
        return outer(self.portal, self.portal.call(partial(method, self.inner, *args, **named)))

    return call


def _entered(
    method: Callable[Concatenate[Any, P], AbstractAsyncContextManager[I]], outer: Callable[[BlockingPortal, I], B]
) -> Callable[Concatenate[_Held, P], AbstractContextManager[B]]:
    """Make a context manager of an asynchronous one that yields one of the client's objects."""

    @contextmanager
    def enter(self: _Held, /, *args: P.args, **named: P.kwargs) -> Iterator[B]:
        async def begin() -> AbstractAsyncContextManager[I]:
            return method(self.inner, *args, **named)

        with self.portal.wrap_async_context_manager(self.portal.call(begin)) as inner:
            yield outer(self.portal, inner)

    return wraps(method)(enter)


def _plain(portal: BlockingPortal, inner: I) -> I:
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
    options: tuple[str, ...] = (),
) -> Iterator[Cell]:
    """As `taskcell.client.connect`."""
    with start_blocking_portal() as portal:
        opened = portal.call(partial(_opened, url, token=token, door=door, config=config, options=options))
        with portal.wrap_async_context_manager(opened) as inner:
            yield Cell(portal, inner)


async def _opened(*words: Any, **named: Any) -> AbstractAsyncContextManager[cell.Cell]:
    return connect_async(*words, **named)
