"""`taskcell exec`"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, command
from taskcell.cli.control_sequences import harmless
from taskcell.errors import BadArgument, TaskcellError
from taskcell.model import DEFAULT_TASK, LOCAL_PRINCIPAL, ProcessResult, Status, ToolCall

if TYPE_CHECKING:
    from taskcell.assembly.stack import Loaded

TERMINAL = "terminal"
#: Seconds for the kill path and the closing after a signal, as in `serve`.
SHUTDOWN_LIMIT = 4.5


def register(app: typer.Typer) -> None:
    command(
        app,
        name="exec",
        example="taskcell exec --task demo -- 'cd /tmp && pwd'",
        context_settings={"allow_interspersed_args": False},
    )(exec_)


def exec_(
    run: Invocation,
    *,
    words: Annotated[list[str], typer.Argument(metavar="CMD", help="A shell line in one word, or a program's words.")],
    task: Annotated[str, typer.Option(help="The task whose sandbox runs it.")] = DEFAULT_TASK,
    skill: Annotated[str | None, typer.Option(help="A skill that gets CMD as its arguments.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until the command is killed.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input to the command.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Pass control sequences to the terminal unfiltered.")] = False,
) -> int:
    """Run one command as a tool call does, and exit with its code.

    The output is shown when the command has ended. Ctrl-C kills it with everything that it started. Afterwards the
    sandbox and the task's files are gone. On a terminal, the output can colour text and move the cursor; without --raw,
    other control sequences are left out.
    """
    import anyio

    from taskcell.assembly import stack

    tool = skill or TERMINAL
    arguments: dict[str, Any] = {"task_id": task}
    if tool == TERMINAL:
        arguments["command"] = words[0] if len(words) == 1 else shlex.join(words)
    else:
        arguments["args"] = words
    if timeout is not None:
        arguments["timeout"] = timeout
    if stdin:
        arguments["stdin"] = _read_stdin()
    loaded = stack.load(run)
    stack.warn_unless_isolated(loaded.settings)
    _check_free_form(tool, loaded)
    result = anyio.run(_run, run, loaded, ToolCall(LOCAL_PRINCIPAL, tool, arguments))
    return EXIT_INTERRUPTED if result is None else _show(result, raw=raw)


def _check_free_form(name: str, loaded: Loaded) -> None:
    """Raise BadArgument if the name is that of a skill with typed tools, or of a typed tool: words are no arguments."""
    for skill in loaded.skills:
        typed = [tool.name for tool in skill.tools]
        if typed and name in (skill.name, *typed):
            raise BadArgument(
                f"The skill '{skill.name}' has typed tools, which take named arguments from an MCP client: "
                f"{', '.join(typed)}. `taskcell exec --skill` runs free-form skills only."
            )


def _read_stdin() -> str:
    if sys.stdin is None:
        raise BadArgument("Standard input is closed; leave out -i, or give it something to read.")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise BadArgument(
            f"Standard input is not UTF-8 at byte {error.start}; send it encoded, as in `base64 | taskcell exec -i`."
        ) from None


async def _run(run: Invocation, loaded: Loaded, call: ToolCall) -> ProcessResult | None:
    """The command's result; None when Ctrl-C or SIGTERM came first, and everything was killed."""
    import anyio

    from taskcell.assembly.gateway import configured_gateway

    result: ProcessResult | None = None
    running = anyio.CancelScope()

    async def cancel_on_signal() -> None:
        # SIGHUP comes when the terminal's window is closed; under nohup it is ignored, and stays so.
        hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
        ends = (signal.SIGINT, signal.SIGTERM, *hangup)
        with anyio.open_signal_receiver(*ends) as signals:
            async for _ in signals:
                if running.cancel_called:
                    os._exit(EXIT_INTERRUPTED)
                running.cancel()
                # A timer, not the event loop: Python would wait for the worker thread that a hanging engine keeps.
                watchdog = threading.Timer(SHUTDOWN_LIMIT, os._exit, (EXIT_INTERRUPTED,))
                watchdog.daemon = True
                watchdog.start()

    async with anyio.create_task_group() as watching:
        watching.start_soon(cancel_on_signal)
        with running:
            async with configured_gateway(run, loaded, for_one_call=True) as gateway:
                result = await gateway.call(call, hand_off=False)
        watching.cancel_scope.cancel()
    return None if running.cancelled_caught else result


def _show(result: ProcessResult, *, raw: bool) -> int:
    from taskcell.mcp.text import ending

    _write(sys.stdout, result.stdout, raw=raw)
    _write(sys.stderr, result.stderr, raw=raw)
    if result.status is not Status.EXITED:
        print(f"taskcell: {ending(result)}", file=sys.stderr)  # noqa: T201
    for note in result.notes:
        _write(sys.stderr, f"taskcell: {note}\n", raw=False)
    return EXIT_FAILED if result.exit_code is None else result.exit_code


def _write(stream: Any, text: str, *, raw: bool) -> None:
    """Raises TaskcellError when the output cannot be written; nothing is written to a closed stream."""
    if stream is None:
        return
    if stream.isatty() and not raw:
        text = harmless(text)
    try:
        stream.buffer.write(text.encode("utf-8", "replace"))
        stream.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise TaskcellError(f"The output could not be written: {error.strerror}. The command has run.") from error
