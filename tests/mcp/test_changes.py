"""Which clients are notified that the list of tools has changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp_types import ToolListChangedNotification

from gateways import OWN_TOOLS
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.server import build_server

pytestmark = pytest.mark.anyio

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
#: Seconds for what takes milliseconds.
PATIENCE = 60.0


async def test_a_client_is_not_notified_of_what_the_list_that_it_waits_for_has_already(
    gateway: Callable[..., AbstractAsyncContextManager[Gateway]],
) -> None:
    told: list[list[str]] = []
    news = anyio.Event()
    names: list[str] = []

    async def message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            told.append(list(names))
            news.set()

    with anyio.fail_after(PATIENCE):
        async with (
            gateway(LOCAL, engine="local") as gw,
            Client(build_server(gw), mode="legacy", message_handler=message) as client,
        ):
            gw.offer_known = Known(gw)
            names.extend(tool.name for tool in (await client.list_tools()).tools)
            assert names == [name for name in OWN_TOOLS if name != "search"]
            gw.replace_tools(gw.tools, {})
            # Had the first change been told, it would have been told before this one.
            await news.wait()
            assert told == [names]


class Known(anyio.Event):
    """The list waits for this; meanwhile it turns out that a tool cannot run."""

    def __new__(cls, *_: Any) -> Known:
        return object.__new__(cls)

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def wait(self) -> None:
        self._gateway.replace_tools(self._gateway.tools, {"search": "it is not there"})
        await anyio.wait_all_tasks_blocked()
