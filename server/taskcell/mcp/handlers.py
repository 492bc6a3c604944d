"""The handlers of every method that is served, over an open gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from taskcell.gateway.admission import Admission
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.changes import ToolChanges
from taskcell.mcp.client_log import ClientLog
from taskcell.mcp.completion import Completions
from taskcell.mcp.following import Following
from taskcell.mcp.prompts import get_prompt, list_prompts
from taskcell.mcp.resources.files import file_resources
from taskcell.mcp.resources.outputs import output_resources
from taskcell.mcp.resources.routes import Resources
from taskcell.mcp.subscriptions import Subscriptions
from taskcell.mcp.tasks import Tasks
from taskcell.mcp.tools import Tools
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.pool.slot import placed


class Handlers:
    """What answers the requests of one server. It works while `running` is entered.

    Arguments:
        admission: counts and bounds the calls of the server's door; None means without a bound.
    """

    def __init__(self, gateway: Gateway, admission: Admission | None = None) -> None:
        self._slots = gateway.pool.slots
        self._client_log = ClientLog(gateway)
        self.tools = Tools(gateway, admission or Admission(), self._client_log)
        resources = Resources(gateway, (output_resources(gateway), file_resources(gateway)), self.tools.neighbours)
        subscriptions = Subscriptions(resources, Following(gateway, self.tools.neighbours))
        self.changes = ToolChanges(self.tools, subscriptions)
        tasks = Tasks(gateway, self.tools, self.changes)
        #: By method; `methods.REQUESTS` has the same.
        self.requests: Mapping[str, Callable[[Any, Any], Awaitable[Any]]] = {
            "tools/list": self.tools.list,
            "tools/call": tasks.call,
            "resources/list": resources.list,
            "resources/templates/list": resources.templates,
            "resources/read": resources.read,
            "resources/subscribe": subscriptions.subscribe,
            "resources/unsubscribe": subscriptions.unsubscribe,
            "subscriptions/listen": tasks.listen,
            "prompts/list": list_prompts,
            "prompts/get": get_prompt,
            "completion/complete": Completions(gateway, resources).complete,
            "logging/setLevel": self._client_log.set_level,
            "tasks/get": tasks.get,
            "tasks/update": tasks.update,
            "tasks/cancel": tasks.cancel,
        }
        self.initialized = self.changes.initialized

    def holders(self) -> frozenset[str]:
        """The tasks of whoever started the server that have a sandbox, or are being given one."""
        return placed(self._slots, LOCAL_PRINCIPAL)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what clients asked to hear while this is entered; on leaving, end the requests of those that listen."""
        async with self._client_log.running(), self.changes.announced():
            yield
