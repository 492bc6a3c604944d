"""`taskcell policy`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import BadArgument, UnknownTool
from taskcell.model import LOCAL_PRINCIPAL, Command, ToolCall

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded


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
    """Show what the policy decides about a call, by which rule and why, without running it."""
    from taskcell.assembly import stack
    from taskcell.policy.policy import Decision, Effect

    loaded = stack.load(run)
    call = ToolCall(principal, tool, _object(arguments))
    policy = stack.policy_of(loaded.settings, stack.state_folder(run, loaded.settings))
    decisions = [policy.decide(command) for command in _judged(loaded, call)]
    refused = (decision for decision in decisions if decision.effect is not Effect.ALLOW)
    decision = next(refused, decisions[0] if decisions else Decision(Effect.ALLOW, "default", _NOT_JUDGED))
    if as_json:
        fields = {"effect": decision.effect.value, "rule": decision.rule, "reason": decision.reason}
        typer.echo(json.dumps(fields, indent=2))
    else:
        typer.echo(f"{decision.effect.value}, by the rule '{decision.rule}': {decision.reason}")


_NOT_JUDGED = "The call runs no command, so no rule judges it."


def _judged(loaded: Loaded, call: ToolCall) -> Sequence[Command]:
    """The commands that the rules look at."""
    from taskcell.schema.arguments import nearest

    found = loaded.tools.get(call.tool)
    if found is None:
        raise UnknownTool(f"There is no tool '{call.tool}'{nearest(call.tool, loaded.tools)}.")
    return found.commands(call)


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f'ARGS-JSON is not JSON ({error}); write it as in \'{{"command": "ls"}}\'.') from None
    if not isinstance(value, dict):
        raise BadArgument('ARGS-JSON must be one JSON object, as in \'{"command": "ls"}\'.')
    return value
