"""`taskcell policy`"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from taskcell.cli.invocation import Invocation, command
from taskcell.errors import BadArgument, UnknownTool
from taskcell.model import LOCAL_PRINCIPAL, ToolCall


def register(app: typer.Typer) -> None:
    policy = typer.Typer(help="What the policy decides.", no_args_is_help=True, rich_markup_mode=None)
    # A callback keeps the group: a typer app of one command alone is that command.
    policy.callback()(lambda: None)
    command(policy, name="explain", example="""taskcell policy explain terminal '{"command": "rm -rf /"}'""")(explain)
    app.add_typer(policy, name="policy")


def explain(
    run: Invocation,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="A tool's name.")],
    arguments: Annotated[str, typer.Argument(metavar="ARGS-JSON", help="The call's arguments, a JSON object.")],
    principal: Annotated[str, typer.Option(help="Who calls.")] = LOCAL_PRINCIPAL,
    as_json: Annotated[bool, typer.Option("--json", help="An object with effect, rule and reason.")] = False,
) -> None:
    """Say what the policy decides on a call, by which rule and why, without running it."""
    from taskcell.cli import stack
    from taskcell.policy import Policy
    from taskcell.tool import nearest

    loaded = stack.load(run)
    found = loaded.tools.get(tool)
    if found is None:
        raise UnknownTool(f"There is no tool '{tool}' that runs commands{nearest(tool, loaded.tools)}.")
    bound = found.bind(ToolCall(principal, tool, _object(arguments)))
    decision = Policy(loaded.settings.policy, loaded.settings.own_files, loaded.settings.secret_files).decide(bound)
    if as_json:
        fields = {"effect": decision.effect.value, "rule": decision.rule, "reason": decision.reason}
        typer.echo(json.dumps(fields, indent=2))
    else:
        typer.echo(f"{decision.effect.value}, by the rule '{decision.rule}': {decision.reason}")


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f'ARGS-JSON is not JSON ({error}); write it as in \'{{"command": "ls"}}\'.') from None
    if not isinstance(value, dict):
        raise BadArgument('ARGS-JSON must be one JSON object, as in \'{"command": "ls"}\'.')
    return value
