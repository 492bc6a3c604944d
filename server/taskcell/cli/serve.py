"""`taskcell serve`"""

from __future__ import annotations

import os

import structlog
import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command

log = structlog.get_logger(__name__)


def register(app: typer.Typer) -> None:
    command(app, example="taskcell serve --config ~/taskcell.toml", default_level="info")(serve)


def serve(run: Invocation) -> None:
    """Serve MCP over standard input and output, until the client ends it.

    An MCP client starts this command. Standard input and output carry MCP alone; logs go to standard error.
    SIGTERM, SIGINT and the end of input close every sandbox and end the server with exit code 0.
    """
    from taskcell.mcp.transport.descriptors import claim_stdio

    terminal = os.isatty(0)
    with claim_stdio() as wire:
        import anyio

        from taskcell.assembly import reload, stack
        from taskcell.engine import kinds
        from taskcell.mcp.server import serve_stdio

        loaded = stack.load(run)
        settings = loaded.settings
        file = str(settings.file) if settings.file else "none; the defaults hold"
        log.info("Serving with these files.", configuration=file, manifests=list(map(str, settings.manifest_paths)))
        isolated = kinds.kind_of(settings.engine).isolates
        stack.warn_unless_isolated(settings)
        if terminal:
            log.info("Serving MCP on this terminal; usually an MCP client starts this command. Ctrl-D ends it.")

        async def main() -> None:
            gateway = lambda: reload.following_gateway(run, loaded)  # noqa: E731
            await serve_stdio(wire, gateway, output_chars=settings.limits.output_chars, isolated=isolated)

        anyio.run(main, backend_options={"use_uvloop": True})
