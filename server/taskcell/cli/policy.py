"""`taskcell policy`"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.environment import Environment
from taskcell.errors import BadArgument, TaskcellError, UnknownTool
from taskcell.model import LOCAL_PRINCIPAL, Command, Profile, ToolCall

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded
    from taskcell.config.settings import Settings


def register(app: typer.Typer) -> None:
    policy = typer.Typer(help="What the policy decides.", no_args_is_help=True, rich_markup_mode=None)
    # A callback keeps the group: a typer app of one command alone is that command.
    policy.callback()(lambda: None)
    command(policy, name="explain", example="""taskcell policy explain terminal '{"command": "rm -rf /"}'""")(explain)
    app.add_typer(policy, name="policy")


def explain(
    run: Invocation,
    *,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="A tool's name.")],
    arguments: Annotated[str, typer.Argument(metavar="ARGS-JSON", help="The call's arguments, a JSON object.")],
    environment: Annotated[str, typer.Option(help="The task's environment, of [environments.NAME].")] = "",
    image: Annotated[str, typer.Option(help="The image that the task was opened with.")] = "",
    principal: Annotated[str, typer.Option(help="Who calls.")] = LOCAL_PRINCIPAL,
    as_json: Annotated[bool, typer.Option("--json", help="An object with effect, rule and reason.")] = False,
) -> None:
    """Show what the policy decides about a call, by which rule and why, without running it."""
    import anyio

    from taskcell.assembly import stack
    from taskcell.policy.policy import Decision, Effect

    loaded = stack.load(run)
    call = ToolCall(principal, tool, _object(arguments))
    policy = stack.policy_of(loaded.settings, stack.state_folder(run, loaded.settings))
    judged = _judged(loaded, call, Environment(environment, image))
    decisions = [policy.decide(command) for command in judged]
    refused = (decision for decision in decisions if decision.effect is not Effect.ALLOW)
    decision = next(refused, decisions[0] if decisions else Decision(Effect.ALLOW, "default", _NOT_JUDGED))
    reached = anyio.run(_reached, run, loaded.settings, [command.profile for command in judged])
    if as_json:
        fields: dict[str, object] = {
            "effect": decision.effect.value,
            "rule": decision.rule,
            "reason": decision.reason,
            **({"egress": reached} if reached else {}),
        }
        typer.echo(json.dumps(fields, indent=2))
    else:
        typer.echo(f"{decision.effect.value}, by the rule '{decision.rule}': {decision.reason}")
        for entry, hosts in reached.items():
            typer.echo(f"egress {entry}: {', '.join(hosts) or _NO_HOSTS}")


async def _reached(run: Invocation, settings: Settings, profiles: Sequence[Profile]) -> dict[str, list[str]]:
    """What each entry of the profiles' `egress` stands for. What the image says is left out where no engine answers."""
    from taskcell.assembly import stack
    from taskcell.egress.presets import patterns_of

    found: dict[str, list[str]] = {}
    for profile in dict.fromkeys(profiles):
        labels: Mapping[str, str] | None = None
        if any(entry.startswith("@") for entry in profile.egress):
            with suppress(TaskcellError):
                async with stack.opened_engine(run, settings) as engine:
                    labels = await engine.images.image_labels(profile.image) if engine.images else None
        for entry in profile.egress:
            found[entry] = [str(pattern) for pattern in patterns_of([entry], settings.egress.presets, labels or {})]
    return found


_NO_HOSTS = "no host: nothing in [egress.presets], and nothing in the image's label (`taskcell image build` writes it)"
_NOT_JUDGED = "The call runs no command, so no rule judges it."


def _judged(loaded: Loaded, call: ToolCall, environment: Environment) -> Sequence[Command]:
    """The commands that the rules look at, in a task of an environment."""
    from taskcell.schema.arguments import nearest
    from taskcell.tools.environments import tool_in

    found = loaded.tools.get(call.tool)
    if found is None:
        raise UnknownTool(f"There is no tool '{call.tool}'{nearest(call.tool, loaded.tools)}.")
    if found.is_of_terminal and not environment.is_default:
        found = tool_in(loaded.settings, environment, found)
    return found.commands(call)


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArgument(f'ARGS-JSON is not JSON ({error}); write it as in \'{{"command": "ls"}}\'.') from None
    if not isinstance(value, dict):
        raise BadArgument('ARGS-JSON must be one JSON object, as in \'{"command": "ls"}\'.')
    return value
