"""`taskcell serve`"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.addresses import split_host
from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import ConfigError
from taskcell.log import Logger, configure_now

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded
    from taskcell.config.http_table import HttpSettings
    from taskcell.config.settings import Settings
    from taskcell.mcp.handlers import Handlers

log = Logger(__name__)


def register(app: typer.Typer) -> None:
    command(
        app,
        example="taskcell serve --config ~/taskcell.toml",
        default_level="info",
        takes_folder=True,
        begins_log=False,
    )(serve)


def serve(
    run: Invocation,
    http: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Serve over HTTP at /mcp; '-' takes host and port from [http]."),
    ] = None,
    door: Annotated[
        bool, typer.Option("--door", help="Serve the program that starts this, through a socket whose path is printed.")
    ] = False,
) -> None:
    """Serve MCP over standard input and output, until the client ends it; or over HTTP, until SIGTERM.

    An MCP client starts this command. Standard input and output carry MCP alone; logs go to standard error.
    SIGTERM, SIGINT and the end of input end the server with exit code 0; `pool.on_exit` says what becomes of sandboxes.
    """
    if door and http is not None:
        raise typer.BadParameter("--door and --http are two ways to serve; give one of them.")
    if not door and http is None:
        _serve_stdio(run)
        return
    configure_now()
    if door:
        _serve_door(run)
    else:
        assert http is not None
        _serve_http(run, http)


@contextmanager
def _loading() -> Iterator[None]:
    """Import without looking for garbage: modules stay, and going through their objects is a tenth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _serve_stdio(run: Invocation) -> None:
    from taskcell.mcp.transport.descriptors import claim_stdio, is_client

    terminal = os.isatty(0)
    with claim_stdio() as wire:
        with _loading():
            import anyio

            from taskcell.assembly import stack
            from taskcell.engine import kinds
            from taskcell.mcp.server import serve_stdio

            settings = stack.load_settings(run)
            if settings.workspace.folder or settings.workspace.root:
                policy = stack.policy_of(settings, stack.state_folder(run, settings), stack.audit_path(run, settings))
                stack.authorize_folders(policy, settings)
        isolated = kinds.kind_of(settings.engine).isolates
        if terminal:
            log.info("Serving MCP on this terminal; usually an MCP client starts this command. Ctrl-D ends it.")
        # Nobody waits for the first answer to a file, and its end must not come before the answers.
        opens_first = not (is_client(wire.read) and stack.opens_for_sure(settings))

        async def main() -> None:
            await serve_stdio(
                wire,
                lambda: _handlers(run, settings),
                output_chars=settings.limits.output_chars,
                isolated=isolated,
                opens_first=opens_first,
            )

        anyio.run(main, backend_options={"use_uvloop": True})


@asynccontextmanager
async def _handlers(run: Invocation, settings: Settings) -> AsyncIterator[Handlers]:
    """What answers a client's requests after the first, over an open gateway."""
    with _loading():
        configure_now()
        from taskcell.assembly import stack
        from taskcell.assembly.reload import following_gateway
        from taskcell.engine import kinds
        from taskcell.http.local_door import with_local_door
        from taskcell.mcp.handlers import Handlers

        loaded = _said(stack.load_manifests(run, settings))
    isolated = kinds.kind_of(settings.engine).isolates
    async with with_local_door(lambda: following_gateway(run, loaded), settings, isolated=isolated) as gateway:
        yield Handlers(gateway)


def _serve_door(run: Invocation) -> None:
    """Print the socket's path on standard output, and serve until standard input ends."""
    from taskcell.mcp.transport.descriptors import claim_stdio

    with claim_stdio() as wire:
        import anyio

        from taskcell.assembly.reload import following_gateway
        from taskcell.engine import kinds
        from taskcell.http.local_door import serve_own_client, with_local_door

        loaded = _load(run)
        isolated = kinds.kind_of(loaded.settings.engine).isolates

        def announce(path: Path) -> None:
            os.write(wire.write, f"{path}\n".encode())

        async def ended() -> None:
            while True:
                await anyio.wait_readable(wire.read)
                if not os.read(wire.read, 4096):
                    return

        async def main() -> None:
            settings = loaded.settings
            gateway = lambda: with_local_door(lambda: following_gateway(run, loaded), settings, isolated=isolated)  # noqa: E731
            await serve_own_client(gateway, settings, isolated=isolated, announce=announce, ended=ended)

        anyio.run(main, backend_options={"use_uvloop": True})


def _serve_http(run: Invocation, place: str) -> None:
    import anyio

    from taskcell.assembly.reload import following_gateway
    from taskcell.auth.authentication import Authentication
    from taskcell.engine import kinds
    from taskcell.http.listener import listen
    from taskcell.http.local_door import with_local_door
    from taskcell.http.serve import check_binding, serve_http

    loaded = _load(run)
    settings = loaded.settings
    host, port = _address(place, settings.http)
    authentication = Authentication.of(settings)
    check_binding(host, authentication)
    authentication.check()
    try:
        listening = listen(host, port)
    except OSError as error:
        raise ConfigError(f"The server cannot listen on {host}, port {port}: {error.strerror or error}.") from None
    isolated = kinds.kind_of(settings.engine).isolates

    async def main() -> None:
        following = lambda: following_gateway(run, loaded, has_peers=True)  # noqa: E731
        gateway = lambda: with_local_door(following, settings, isolated=isolated)  # noqa: E731
        await serve_http(listening, settings, authentication, gateway, host=host, isolated=isolated)

    with listening:
        check_binding(listening.getsockname()[0], authentication)  # what a name stands for
        anyio.run(main, backend_options={"use_uvloop": True})


def _address(place: str, settings: HttpSettings) -> tuple[str, int]:
    """The host and port that `--http` names; what it leaves out is from `[http]`. Raises BadParameter."""
    if place == "-":
        return settings.host, settings.port
    host, port = split_host(place) if ":" in place else ("", place)
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 1 << 16):
        raise typer.BadParameter(f"'{place}' is not [HOST:]PORT, as in 8765 or 127.0.0.1:8765.")
    return host.removeprefix("[").removesuffix("]") or settings.host, int(port)


def _load(run: Invocation) -> Loaded:
    from taskcell.assembly import stack

    return _said(stack.load(run))


def _said(loaded: Loaded) -> Loaded:
    """Log what is served."""
    from taskcell.assembly import stack

    settings = loaded.settings
    file = str(settings.file) if settings.file else "none; the defaults hold"
    log.info("Serving with these files.", configuration=file, manifests=list(map(str, settings.manifest_paths)))
    stack.warn_unless_isolated(settings)
    return loaded
