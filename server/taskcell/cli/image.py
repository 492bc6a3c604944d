"""`taskcell image`"""

from __future__ import annotations

from typing import Annotated

import typer

from taskcell.cli.invocation import Invocation, command
from taskcell.errors import TaskcellError


def register(app: typer.Typer) -> None:
    image = typer.Typer(help="The default image.", no_args_is_help=True, rich_markup_mode=None)
    # One command alone would take its group's place; a callback keeps `image build`.
    image.callback()(lambda: None)
    command(image, name="build", example="taskcell image build")(build)
    app.add_typer(image, name="image")


def build(
    run: Invocation,
    tag: Annotated[str | None, typer.Option(help="The image's name; default: taskcell/base:latest.")] = None,
) -> None:
    """Build the default image; no image registry is needed where Debian's packages can be reached."""
    import anyio

    anyio.run(_build, run, tag)


async def _build(run: Invocation, tag: str | None) -> None:
    from taskcell.cli import stack
    from taskcell.engine import image
    from taskcell.engine.docker import DockerEngine

    settings = stack.load_settings(run)
    async with stack.opened_engine(run, settings) as engine:
        if not isinstance(engine, DockerEngine):
            raise TaskcellError("The engine 'local' has no images; set engine.kind to 'docker' to build one.")
        await image.build(engine, reference=tag or image.REFERENCE, report=typer.echo)
