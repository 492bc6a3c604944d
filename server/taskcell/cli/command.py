"""What all commands have in common: their options, their invocation, and one sentence for a failure."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from taskcell import log
from taskcell.assembly.invocation import Invocation
from taskcell.errors import ManifestError, TaskcellError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


CONFIG = Annotated[Path | None, typer.Option(help="Configuration file, instead of looking for taskcell.toml.")]
PROJECT = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The host folder that is every task's workspace.", show_default=False),
]
LOG_LEVEL = Annotated[LogLevel, typer.Option(help="Lowest level of log lines on standard error.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Log one level more.")]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show tracebacks, and all log lines.")]


def command(
    app: typer.Typer,
    *,
    example: str,
    name: str | None = None,
    default_level: str = "warning",
    takes_folder: bool = False,
    begins_log: bool = True,
    **settings: Any,
) -> Callable[[Callable[..., int | None]], None]:
    """Register a function as a command. It gets an Invocation and its own options; an int that it returns is the exit
    code.

    Arguments:
        example: one command line for `--help`.
        default_level: of the log on standard error.
        begins_log: False if the function calls `log.configure_now` itself, and uses a `log.Logger` until then.
        takes_folder: it has `--folder`, which overrides `workspace.folder`.
        settings: for typer's `command`.
    """

    def register(function: Callable[..., int | None]) -> None:
        def invoke(
            ctx: typer.Context, config: Path | None, log_level: LogLevel, verbose: bool, debug: bool, **own: Any
        ) -> None:
            outside: Invocation = ctx.obj
            log.configure_later(_level(log_level, verbose=verbose, debug=debug))
            if begins_log:
                log.configure_now()
            run = _in_folder(replace(outside, config=config), own.pop("folder", None))
            raise typer.Exit(guarded(lambda: function(run, **own), debug=debug))

        common = {
            "config": (CONFIG, None),
            "log_level": (LOG_LEVEL, LogLevel(default_level)),
            "verbose": (VERBOSE, False),
            "debug": (DEBUG, False),
        }
        if takes_folder:
            common = {"folder": (PROJECT, None), **common}
        _, *parameters = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        parameters.insert(0, _keyword("ctx", typer.Context))
        parameters += [_keyword(key, kind, default) for key, (kind, default) in common.items()]
        # Typer reads the signature: it is the function's own, followed by the common options.
        invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        invoke.__doc__ = function.__doc__
        app.command(name or function.__name__, epilog=f"Example: {example}", **settings)(invoke)

    return register


def _in_folder(run: Invocation, folder: Path | None) -> Invocation:
    """Lay `--folder` over the configuration, as the variable of that key is. A client's `~` is the user's home."""
    if folder is None:
        return run
    home, parts = run.environ.get("HOME", ""), folder.parts
    place = Path(home, *parts[1:]) if parts[:1] == ("~",) and home else run.cwd / folder
    return replace(run, environ={**run.environ, "TASKCELL__WORKSPACE__FOLDER": str(place)})


def _level(chosen: LogLevel, *, verbose: bool, debug: bool) -> str:
    levels = [level.value for level in LogLevel]
    return levels[0] if debug else levels[max(0, levels.index(chosen.value) - verbose)]


def _keyword(name: str, annotation: object, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def guarded(work: Callable[[], int | None], *, debug: bool) -> int:
    """Run a command's work and return its exit code. A failure is a sentence on standard error.

    Arguments:
        debug: print the traceback too.
    """
    try:
        return work() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except typer.BadParameter:
        raise  # bad usage: typer prints it and exits with code 2
    except BrokenPipeError:
        # The reader of standard output has gone (`| head`); nothing more can reach it.
        sys.stdout = None
        return EXIT_FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        for sentence in _sentences(_only(error)):
            print(f"taskcell: {sentence}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED


def _only(error: BaseException) -> BaseException:
    """The failure itself, out of the task groups that wrap it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _sentences(error: BaseException) -> list[str]:
    match error:
        case ManifestError(faults=faults):
            return faults
        case TaskcellError():
            return str(error).splitlines()
        case BaseExceptionGroup(exceptions=several):
            return [sentence for one in several for sentence in _sentences(_only(one))]
        case _:
            return [f"Internal error: {type(error).__name__}: {error}. Run it again with --debug for the traceback."]
