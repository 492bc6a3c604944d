"""`taskcell tools`"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded


@dataclass(frozen=True, slots=True)
class Row:
    """One tool: what it costs where it is offered, or why it is not, and what to do about that."""

    tool: str
    offered: bool
    characters: int = 0
    tokens: int = 0
    why: str = ""
    mend: str = ""


def register(app: typer.Typer) -> None:
    command(app, name="tools", example="taskcell tools --json")(tools)


def tools(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the tools that a client is offered with what each costs, and say why others are not offered.

    The cost is that of name, description and input schema, which clients put into each request of a model.
    """
    import anyio

    from taskcell.assembly import stack

    loaded = stack.load(run)
    rows, note = anyio.run(_rows, run, loaded)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _show(rows)
        _show_environments(loaded)
    if note:
        typer.echo(note, err=True)


async def _rows(run: Invocation, loaded: Loaded) -> tuple[list[Row], str]:
    """Return a row for each tool, and a note if the engine could not say which images it has."""
    import anyio

    from taskcell.assembly import offer, stack
    from taskcell.errors import TaskcellError
    from taskcell.tools.catalog import is_selected
    from taskcell.tools.cost import characters, tokens

    missing: set[str] = set()
    note = ""
    try:
        with anyio.fail_after(offer.LOOK_TIMEOUT):
            async with stack.opened_engine(run, loaded.settings) as engine:
                missing = await offer.look(engine, offer.only_built(loaded.tools))
    except (TaskcellError, TimeoutError):
        note = "The engine does not answer, so nobody knows whether it has the images; `taskcell doctor` says more."
    policy = stack.policy_of(loaded.settings, stack.state_folder(run, loaded.settings))
    why = offer.reasons(loaded.tools, policy, missing) | offer.left_out_reasons(loaded.left_out)
    rows = []
    for name, tool in loaded.tools.items():
        if not is_selected(loaded.settings.tools, tool):
            rows.append(Row(name, offered=False, why="[tools] hides it", mend="change 'only' or 'hide'"))
        elif name in why:
            rows.append(Row(name, offered=False, why=why[name].why, mend=why[name].mend))
        else:
            size = characters(tool)
            rows.append(Row(name, offered=True, characters=size, tokens=tokens(size)))
    rows += [Row(name, offered=False, why=it.why, mend=it.mend) for name, it in why.items() if name not in loaded.tools]
    return rows, note


def _show_environments(loaded: Loaded) -> None:
    """What `sandbox` opens tasks with."""
    settings = loaded.settings
    for name, table in settings.environments.items():
        typer.echo(f"A task can be opened with the environment '{name}': {table.image}.")
    if settings.policy.task_images:
        typer.echo(f"A task can be opened with images of policy.task_images: {', '.join(settings.policy.task_images)}.")


def _show(rows: list[Row]) -> None:
    offered = [row for row in rows if row.offered]
    width = max((len(row.tool) for row in rows), default=0)
    for row in offered:
        typer.echo(f"{row.tool:{width}}  {row.characters:6,} characters  {row.tokens:5,} tokens")
    size, count = sum(row.characters for row in offered), sum(row.tokens for row in offered)
    noun = "tool is" if len(offered) == 1 else "tools are"
    typer.echo(f"{len(offered)} {noun} offered: {size:,} characters, about {count:,} tokens.")
    withheld: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.offered:
            withheld.setdefault((row.why, row.mend), []).append(row.tool)
    if withheld:
        typer.echo("\nNot offered:")
    for (why, mend), names in withheld.items():
        typer.echo(f"{', '.join(names)}: {why}; {mend}.")
