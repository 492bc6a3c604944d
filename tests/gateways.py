"""The type of the fixture `gateway`: the whole stack below MCP, opened with a configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from taskcell.gateway import Gateway

GatewayFactory = Callable[..., AbstractAsyncContextManager[Gateway]]
