"""`taskcell token`"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.columns import echo_columns
from taskcell.cli.command import command
from taskcell.errors import ConfigError

if TYPE_CHECKING:
    from taskcell.auth.tokens import Token, TokenFile
    from taskcell.caller import Scope

_HEADS = ("ID", "SUBJECT", "SCOPES", "CREATED", "EXPIRES")


def register(app: typer.Typer) -> None:
    tokens = typer.Typer(
        help="Bearer tokens for clients over HTTP, in http.tokens_file.", no_args_is_help=True, rich_markup_mode=None
    )
    command(tokens, name="create", example="taskcell token create ada --expires 90d")(create)
    command(tokens, name="list", example="taskcell token list --json")(list_tokens)
    command(tokens, name="revoke", example="taskcell token revoke 4f9c0a1b2d3e")(revoke)
    app.add_typer(tokens, name="token")


def create(
    run: Invocation,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Whom it is for: the principal of its calls.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it allows: terminal, skills, files, ports, admin. Default: all but admin."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Its lifetime, such as 90d.")] = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Tokens with the same subject share their tasks. A server that is running takes the token at once.
    """
    lifetime, scopes = None if expires is None else _lifetime(expires), _scopes(scope)
    token, text = _file(run).create(subject, scopes, lifetime)
    print(text)  # noqa: T201
    end = "without an end" if token.expires is None else f"until {_day(token.expires)}"
    print(f"taskcell: The token {token.id} for '{subject}' holds {end}; it is not shown again.", file=sys.stderr)  # noqa: T201


def list_tokens(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> None:
    """List the tokens, without what is secret about them."""
    tokens = list(_file(run).tokens().values())
    if as_json:
        typer.echo(json.dumps([token.structured() for token in tokens], indent=2))
        return
    if not tokens:
        typer.echo("No tokens: `taskcell token create SUBJECT` makes one.")
        return
    echo_columns(_HEADS, [_row(one) for one in tokens])


def revoke(
    run: Invocation,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of tokens, as `taskcell token list` shows them.")],
) -> None:
    """Remove tokens. A server that is running refuses them within a second, and ends their requests."""
    _file(run).revoke(ids)
    typer.echo(f"{len(ids)} token{'' if len(ids) == 1 else 's'} revoked.")


def _file(run: Invocation) -> TokenFile:
    from taskcell.assembly import stack
    from taskcell.auth.tokens import TokenFile

    settings = stack.load_settings(run)
    if settings.tokens_file is None:
        raise ConfigError("No file for tokens is named; set http.tokens_file in taskcell.toml, such as 'tokens.json'.")
    return TokenFile(settings.tokens_file)


def _scopes(names: list[str] | None) -> frozenset[Scope]:
    from taskcell.caller import USUAL_SCOPES, Scope

    known = {scope.value: scope for scope in Scope}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise typer.BadParameter(f"There is no scope '{unknown[0]}'; there are {', '.join(known)}.")
    return frozenset(known[name] for name in names) if names else USUAL_SCOPES


def _lifetime(text: str) -> float:
    from taskcell.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--expires {error}") from None


def _row(token: Token) -> tuple[str, ...]:
    from taskcell.caller import format_scopes

    end = "never" if token.expires is None else _day(token.expires)
    scopes = format_scopes(token.scopes).replace(" ", ",")
    return token.id, token.subject, scopes, _day(token.created), f"{end} (expired)" if token.is_expired else end


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) + " UTC"
