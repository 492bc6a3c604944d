"""`taskcell image`"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import TaskcellError

if TYPE_CHECKING:
    from taskcell.images.engine import ImageEngine

EXIT_BAD_USAGE = 2


def register(app: typer.Typer) -> None:
    image = typer.Typer(
        help="The default image, and the images of skills.", no_args_is_help=True, rich_markup_mode=None
    )
    # One command alone would take its group's place; a callback keeps `image build`.
    image.callback()(lambda: None)
    command(image, name="build", example="taskcell image build ffmpeg pandoc")(build)
    app.add_typer(image, name="image")


def build(
    run: Invocation,
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Images of skills to build.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Build the images of all skills.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build even what is up to date, for newer packages.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List what can be built, and its state.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="Build this Dockerfile, with the folder that it is in, as --tag.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name of the image of --file, or of the default image.")] = None,
) -> int | None:
    """Build the default image, with names the images of skills, or your own. What is up to date stays as it is.

    No image registry is needed where Debian's packages can be reached.
    """
    import anyio

    if file is not None and (names or everything or listing):
        return bad_usage("--file builds one image of your own; leave names, --all and --list out.")
    if file is not None and not tag:
        return bad_usage("--file needs the image's name: --tag NAME.")
    if listing and (names or everything or force or tag):
        return bad_usage("--list builds nothing; leave the other options out.")
    if tag and (names or everything):
        return bad_usage("--tag names the default image only; leave it or the names out.")
    if everything and names:
        return bad_usage("--all builds every image; leave it or the names out.")
    if file is not None:
        anyio.run(_build_own, run, run.cwd / file.expanduser(), str(tag), force)
    elif listing:
        anyio.run(_list, run)
    elif names or everything:
        anyio.run(_build_skills, run, names or [], everything, force)
    else:
        anyio.run(_build_default, run, tag, force)
    return None


def bad_usage(sentence: str) -> int:
    typer.echo(f"taskcell: {sentence}", err=True)
    return EXIT_BAD_USAGE


async def _build_own(run: Invocation, file: Path, tag: str, force: bool) -> None:
    from taskcell.images.own import build_own

    async with _images(run) as engine:
        await build_own(engine, file, tag, report=typer.echo, force=force)


async def _build_default(run: Invocation, tag: str | None, force: bool) -> None:
    from taskcell.images import default as image
    from taskcell.images.package_hosts import label_packages

    async with _images(run) as engine:
        await image.build(engine, reference=tag or image.REFERENCE, report=typer.echo, force=force)
        await label_packages(engine, tag or image.REFERENCE, typer.echo)


async def _build_skills(run: Invocation, names: list[str], everything: bool, force: bool) -> None:
    from taskcell.images import skills as skill_images
    from taskcell.images.package_hosts import label_packages

    chosen = skill_images.select(names, everything=everything)
    async with _images(run) as engine:
        await skill_images.build(engine, chosen, report=typer.echo, force=force)
        for skill in chosen:
            await label_packages(engine, skill.reference, typer.echo)


async def _list(run: Invocation) -> None:
    from taskcell.images import default as image
    from taskcell.images import skills as skill_images

    async with _images(run) as engine:
        state = await skill_images.state(engine, image.REFERENCE)
        purpose = f"the terminal, and the skills that need no image of their own ({image.MEGABYTES} MB)"
        rows = [("", image.REFERENCE, state.value, purpose)]
        for skill in skill_images.CATALOG.values():
            state = await skill_images.state(engine, skill.reference)
            rows.append((skill.name, skill.reference, state.value, f"{skill.purpose} (adds {skill.size} MB)"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, reference, there, purpose in rows:
        typer.echo(f"{name:{widths[0]}}  {reference:{widths[1]}}  {there:{widths[2]}}  {purpose}")


@asynccontextmanager
async def _images(run: Invocation) -> AsyncIterator[ImageEngine]:
    """The engine's images. Raises TaskcellError when it has none."""
    from taskcell.assembly import stack

    settings = stack.load_settings(run)
    async with stack.opened_engine(run, settings) as engine:
        if engine.images is None:
            kind = settings.engine.kind
            raise TaskcellError(f"The engine '{kind}' has no images; choose another engine.kind to build one.")
        yield engine.images
