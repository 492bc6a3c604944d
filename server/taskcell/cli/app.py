"""The command `taskcell` and its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from taskcell import __version__
from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import EXIT_INTERRUPTED

#: The modules of this package that register commands, in the order of `--help`.
_MODULES = (
    "serve",
    "install",
    "doctor",
    "exec",
    "shell",
    "cp",
    "forward",
    "logs",
    "ps",
    "rm",
    "snapshot",
    "volume",
    "token",
    "audit",
    "skills",
    "tools",
    "policy",
    "image",
    "import_from",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taskcell {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An MCP server that gives every task of an LLM agent its own hardened container."""


def application(wanted: str = "") -> typer.Typer:
    """Return the command line with the command of one module, or with all commands if no module has that name.

    A client waits for the start of `serve`, of which importing the other commands would be a tenth.
    """
    app = typer.Typer(
        name="taskcell",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog="Example: taskcell doctor")(_root)
    for name in (wanted,) if wanted in _MODULES else _MODULES:
        import_module(f"taskcell.cli.{name}").register(app)
    return app


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
        application(next(iter(arguments), ""))(list(arguments), prog_name="taskcell", obj=Invocation(environ, cwd))
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
