"""`taskcell skills`"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded
    from taskcell.skills.manifest import Skill


def register(app: typer.Typer) -> None:
    skills = typer.Typer(help="What the skill manifests declare.", no_args_is_help=True, rich_markup_mode=None)
    command(skills, name="list", example="taskcell skills list --json")(list_skills)
    command(skills, name="check", example="taskcell skills check --config taskcell.toml")(check)
    app.add_typer(skills, name="skills")


def list_skills(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the skills with their images, and the typed tools of each skill."""
    from taskcell.assembly import stack

    loaded = stack.load(run)
    if as_json:
        typer.echo(json.dumps(_objects(loaded), indent=2))
        return
    if not loaded.skills:
        typer.echo("No skills: name their TOML files or folders as `manifests` in taskcell.toml.")
    rows = [row for skill in sorted(loaded.skills, key=lambda skill: skill.name) for row in _rows(skill)]
    names = max((len(name) for name, _, _ in rows), default=0)
    images = max((len(image) for _, image, _ in rows), default=0)
    for name, image, description in rows:
        typer.echo(f"{name:{names}}  {image:{images}}  {_first_sentence(description)}".rstrip())


def _objects(loaded: Loaded) -> list[dict[str, str]]:
    """An object for each tool of a skill, sorted by name."""
    return [
        {"tool": tool.name, "skill": tool.profile.name, "image": tool.profile.image, "description": tool.description}
        for tool in sorted(loaded.tools.values(), key=lambda tool: tool.name)
        if tool.profile is not None and tool.profile.kind == "skill"
    ]


def _rows(skill: Skill) -> Iterator[tuple[str, str, str]]:
    """Name, image and description of the skill, then of each of its typed tools."""
    yield skill.name, skill.image, skill.description
    for tool in sorted(skill.tools, key=lambda tool: tool.name):
        yield f"  {tool.name}", "", tool.description


def check(run: Invocation) -> None:
    """Check every manifest, and what it declares against the policy and the environment.

    Each fault is one line with file, line and key; the exit code is 1 if there is any.
    """
    from taskcell.assembly import check, stack
    from taskcell.errors import ManifestError

    settings = stack.load_settings(run)
    faults = check.find_faults(run, settings)
    for note in check.find_notes(run, settings):
        typer.echo(f"note: {note}.")
    if faults:
        raise ManifestError(faults)
    loaded = stack.load_manifests(run, settings)
    tools = sum(len(skill.tool_names) for skill in loaded.skills)
    are = "is" if len(loaded.skills) == 1 else "are"
    typer.echo(f"{_counted(len(loaded.skills), 'skill')} with {_counted(tools, 'tool')} {are} good.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _first_sentence(text: str) -> str:
    words = " ".join(text.split())
    end = words.find(". ")
    return words if end < 0 else words[: end + 1]
