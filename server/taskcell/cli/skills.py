"""`taskcell skills`"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from taskcell.cli.invocation import Invocation, command


def register(app: typer.Typer) -> None:
    skills = typer.Typer(help="What the skill manifests declare.", no_args_is_help=True, rich_markup_mode=None)
    command(skills, name="list", example="taskcell skills list --json")(list_skills)
    command(skills, name="check", example="taskcell skills check --config taskcell.toml")(check)
    app.add_typer(skills, name="skills")


def list_skills(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the tools that skills give, with their images."""
    from taskcell.cli import stack

    tools = [tool for tool in stack.load(run).tools.values() if tool.profile.kind == "skill"]
    rows = [
        {"tool": tool.name, "skill": tool.profile.name, "image": tool.profile.image, "description": tool.description}
        for tool in sorted(tools, key=lambda tool: tool.name)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No skills: name their TOML files or folders as `manifests` in taskcell.toml.")
    names = max((len(row["tool"]) for row in rows), default=0)
    images = max((len(row["image"]) for row in rows), default=0)
    for row in rows:
        typer.echo(f"{row['tool']:{names}}  {row['image']:{images}}  {_first_sentence(row['description'])}".rstrip())


def check(run: Invocation) -> None:
    """Check every manifest; each fault is one line with file, line and key, and the exit code is 1."""
    from taskcell.cli import stack

    loaded = stack.load(run)
    tools = sum(tool.profile.kind == "skill" for tool in loaded.tools.values())
    are = "is" if len(loaded.skills) == 1 else "are"
    typer.echo(f"{_counted(len(loaded.skills), 'skill')} with {_counted(tools, 'tool')} {are} good.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _first_sentence(text: str) -> str:
    words = " ".join(text.split())
    end = words.find(". ")
    return words if end < 0 else words[: end + 1]
