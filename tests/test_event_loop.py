"""The tests' event loop passes over one race of sockets, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from event_loop import Loop


def errors_of(callback: Callable[..., object], *arguments: object) -> int:
    """How many errors a loop reports that runs a callback."""
    loop, errors = Loop(), list[Any]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    loop.call_soon(callback, *arguments)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    return len(errors)


@pytest.fixture
def future() -> Iterator[asyncio.Future[None]]:
    loop = Loop()
    yield loop.create_future()
    loop.close()


def test_a_socket_that_is_ready_just_after_its_wait_was_cancelled_is_no_error(future: asyncio.Future[None]) -> None:
    future.cancel()
    assert errors_of(future.set_result, None) == 0


def test_a_future_that_is_answered_twice_is_an_error(future: asyncio.Future[None]) -> None:
    future.set_result(None)
    assert errors_of(future.set_result, None) == 1


def test_any_other_callback_that_fails_is_an_error() -> None:
    assert errors_of(lambda: 1 / 0) == 1
