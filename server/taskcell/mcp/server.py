"""The MCP server: what it says about itself, and one session of it over stdio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Any

import anyio
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp_types import NotificationParams

from taskcell import __version__
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.changes import ToolChanges
from taskcell.mcp.resources.files import file_resources
from taskcell.mcp.resources.outputs import output_resources
from taskcell.mcp.resources.routes import Resources
from taskcell.mcp.tasks import Tasks
from taskcell.mcp.tools import Tools
from taskcell.mcp.transport.answer_sizes import kinds
from taskcell.mcp.transport.descriptors import Wire
from taskcell.mcp.transport.in_flight import InFlight
from taskcell.mcp.transport.shutdown import Shutdown
from taskcell.mcp.transport.stdio import stdio_streams
from taskcell.model import LOCAL_PRINCIPAL

INSTRUCTIONS = """\
Every task has its own container. Calls with the same task_id share their files in /workspace, and for `terminal` also \
the working directory and exported variables; calls with another task_id see nothing of them. Give each piece of work \
a task_id of its own, and run `sandbox` with action "close" when it is done: files that are not kept on purpose are \
deleted then.
`terminal` runs a shell command; a skill runs one program, whose files are the task's too; \
`read_file`, `write_file`, `edit_file` and `list_files` work on them without a shell. A \
command that is over its timeout is killed with everything it started, and what it had written until then is answered. \
One that takes long is answered as "running" and goes on: ask for it with `process`.\
"""
NO_ISOLATION = "\nThis server runs commands with no isolation: they are ordinary processes of its own machine."


class TaskcellServer(Server[ToolChanges]):
    """Says in the handshake, too, that the list of tools may change; `server/discover` does so by itself."""

    changes: ToolChanges

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changing = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(changing, experimental_capabilities, extensions)


def build_server(gateway: Gateway, *, principal: str, isolated: bool = True) -> TaskcellServer:
    """A server for both eras of the protocol: the `initialize` handshake, and `server/discover`.

    Arguments:
        principal: whose tasks the calls belong to.
        isolated: False when the engine has no isolation, which the instructions then say.
    """
    tools = Tools(gateway, principal)
    changes = ToolChanges(tools)
    resources = Resources(principal, (output_resources(gateway), file_resources(gateway)))

    @asynccontextmanager
    async def lifespan(_: Server[ToolChanges]) -> AsyncIterator[ToolChanges]:
        async with changes.told():
            yield changes

    server = TaskcellServer(
        "taskcell",
        version=__version__,
        title="taskcell",
        description="Runs every task's commands in its own hardened container.",
        instructions=INSTRUCTIONS if isolated else INSTRUCTIONS + NO_ISOLATION,
        on_list_tools=tools.list,
        on_call_tool=tools.call,
        on_list_resources=resources.list,
        on_list_resource_templates=resources.templates,
        on_read_resource=resources.read,
        on_subscriptions_listen=changes.listen,
        get_tool_input_schema=tools.input_schema,
        lifespan=lifespan,
    )
    # The SDK's only one: spans of every message, which nobody here collects.
    server.middleware.clear()
    server.add_notification_handler("notifications/initialized", NotificationParams, changes.initialized)
    server.changes = changes
    Tasks(gateway, principal, tools, changes).serve(server)
    return server


async def serve_stdio(
    wire: Wire,
    open_gateway: Callable[[], AbstractAsyncContextManager[Gateway]],
    *,
    output_chars: int,
    isolated: bool = True,
) -> None:
    """Serve one client until its input ends, it stops reading, or a signal comes; then clean up and return.

    Arguments:
        wire: from `claim_stdio`.
        open_gateway: makes the gateway; it is closed, and with it every sandbox, before this returns.
        output_chars: characters of output in one answer, by which it is known how much is in flight at once.

    Raises:
        TaskcellError: the gateway cannot be opened.
    """
    session = anyio.CancelScope()
    shutdown = Shutdown(session)
    in_flight = InFlight(kinds(output_chars))
    at_end = ExitStack()
    at_end.callback(shutdown.begin)
    async with anyio.create_task_group() as watching:
        watching.start_soon(shutdown.watch_signals)
        with session:
            async with (
                stdio_streams(wire, in_flight, on_end=at_end.close, on_broken=shutdown.stop) as (reader, writer),
                open_gateway() as gateway,
            ):
                server = build_server(gateway, principal=LOCAL_PRINCIPAL, isolated=isolated)
                # A client that listens for changes must not be waited for as for one that is owed an answer.
                at_end.callback(server.changes.close)
                await server.run(reader, writer, server.create_initialization_options())
        shutdown.begin()
        watching.cancel_scope.cancel()
