"""The type of the fixture `gateway`: the whole stack below MCP, opened with a configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from taskcell.gateway.gateway import Gateway

GatewayFactory = Callable[..., AbstractAsyncContextManager[Gateway]]

#: The server's own tools, in the order in which they are listed.
OWN_TOOLS = ["terminal", "process", "sandbox", "read_file", "write_file", "edit_file", "list_files", "search"]
