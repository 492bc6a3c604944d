"""The command `taskcell` and its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from taskcell import __version__
from taskcell.assembly.invocation import Invocation
from taskcell.cli import (
    audit,
    cp,
    doctor,
    exec,
    forward,
    image,
    import_from,
    install,
    logs,
    policy,
    ps,
    rm,
    serve,
    shell,
    skills,
    snapshot,
    token,
    tools,
    volume,
)
from taskcell.cli.command import EXIT_INTERRUPTED

app = typer.Typer(
    name="taskcell",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taskcell {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: taskcell doctor")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An MCP server that gives every task of an LLM agent its own hardened container."""


_REGISTERED = (
    serve,
    install,
    doctor,
    exec,
    shell,
    cp,
    forward,
    logs,
    ps,
    rm,
    snapshot,
    volume,
    token,
    audit,
    skills,
    tools,
    policy,
    image,
    import_from,
)
for module in _REGISTERED:
    module.register(app)


def run(arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path) -> int:
    """Run one command line.

    Arguments:
        arguments: without the program's name.
        environ: of the process; commands read no other environment.
        cwd: where the configuration is looked for.

    Returns:
        The exit code: 0, the one that `exec` passes on, 1 for a failure, 2 for bad usage, 130 after Ctrl-C.
    """
    try:
        app(list(arguments), prog_name="taskcell", obj=Invocation(environ, cwd))
    except SystemExit as end:
        return _code(end.code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _code(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)  # noqa: T201
    return 1
