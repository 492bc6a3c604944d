"""`taskcell exec`"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, command
from taskcell.cli.control_sequences import harmless
from taskcell.environment import Environment
from taskcell.errors import BadArgument, SandboxLost, TaskcellError, UnknownProcess
from taskcell.model import DEFAULT_TASK, LOCAL_PRINCIPAL, MIB, ProcessResult, Status, TaskKey, ToolCall

if TYPE_CHECKING:
    from pathlib import Path

    from taskcell.assembly.stack import Loaded
    from taskcell.gateway.gateway import Gateway
    from taskcell.process.kept_output import Piece

TERMINAL = "terminal"
#: Seconds for the kill path and the closing after a signal, as in `serve`.
SHUTDOWN_LIMIT = 4.5
#: Bytes of a stream that are shown; a sandbox keeps no more of one.
KEPT_MAX = 256 * MIB


def register(app: typer.Typer) -> None:
    command(
        app,
        name="exec",
        example="taskcell exec --task demo -- 'cd /tmp && pwd'",
        takes_folder=True,
        context_settings={"allow_interspersed_args": False},
    )(exec_)


def exec_(
    run: Invocation,
    *,
    words: Annotated[list[str], typer.Argument(metavar="CMD", help="A shell line in one word, or a program's words.")],
    task: Annotated[
        str | None, typer.Option(help="The task whose sandbox runs it, that of a running server where one has it.")
    ] = None,
    skill: Annotated[str | None, typer.Option(help="A skill that gets CMD as its arguments.")] = None,
    environment: Annotated[str | None, typer.Option(help="Of [environments.NAME], for a task that is new.")] = None,
    image: Annotated[str | None, typer.Option(help="An image of policy.task_images, for a task that is new.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until the command is killed.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input to the command.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Pass control sequences to the terminal unfiltered.")] = False,
) -> int:
    """Run one command as a tool call does, and exit with its code.

    The output is shown when the command has ended. Ctrl-C kills it with everything that it started. With --task, it
    runs in the very task of a server of the deployment that has it. Otherwise, afterwards, the sandbox and the task's
    files are gone. On a terminal, the output can colour text and move the cursor; without --raw, other control
    sequences are left out.
    """
    import anyio

    from taskcell.assembly import stack

    tool = skill or TERMINAL
    arguments: dict[str, Any] = {"task_id": task or DEFAULT_TASK}
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
    _check_runs_words(tool, loaded)
    call = ToolCall(LOCAL_PRINCIPAL, tool, arguments, hand_off=False)
    opened = Environment(environment or "", image or "")
    if skill and not opened.is_default:
        raise BadArgument("--environment and --image are for the terminal; a skill has its own image.")
    ended = anyio.run(_run, run, loaded, call, task is not None, opened)
    return EXIT_INTERRUPTED if ended is None else _show(*ended, raw=raw)


def _check_runs_words(name: str, loaded: Loaded) -> None:
    """Raise BadArgument unless the tool takes words as arguments: the terminal, or a free-form skill."""
    from taskcell.tools.binding import ProgramTool

    for absent in loaded.left_out:
        if name in (absent.name, *absent.tool_names):
            raise BadArgument(f"The skill '{absent.name}' is left out: {'; '.join(absent.reasons)}.")
    if not isinstance(loaded.tools.get(name, None), ProgramTool | None):
        raise BadArgument(f"'{name}' runs no program; use `terminal` or a skill for that.")
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


async def _run(
    run: Invocation, loaded: Loaded, call: ToolCall, of_server: bool, opened: Environment
) -> tuple[ProcessResult, Mapping[str, Piece]] | None:
    """The command's result and its output; None when Ctrl-C or SIGTERM came first, and everything was killed.

    Arguments:
        of_server: where a server has the task, run it there.
        opened: what a new task is opened with.
    """
    import anyio

    ended: tuple[ProcessResult, Mapping[str, Piece]] | None = None
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
            ended = await _run_somewhere(run, loaded, call, of_server, opened)
        watching.cancel_scope.cancel()
    return None if running.cancelled_caught else ended


async def _run_somewhere(
    run: Invocation, loaded: Loaded, call: ToolCall, of_server: bool, opened: Environment
) -> tuple[ProcessResult, Mapping[str, Piece]]:
    from taskcell.assembly import stack
    from taskcell.assembly.gateway import configured_gateway
    from taskcell.cli.in_task import door_of, run_in_task
    from taskcell.tools.environments import open_task

    folder = stack.state_folder(run, loaded.settings)
    if of_server and folder is not None:
        door = await door_of(folder, TaskKey(call.principal, call.arguments["task_id"]))
        if door is not None and not opened.is_default:
            raise BadArgument("A server has this task, in the environment that it was opened with; name another task.")
        if door is not None:
            return await run_in_task(door, call)
        await _tell_kept(stack.archive_folder(run, loaded.settings), TaskKey(call.principal, call.arguments["task_id"]))
    async with configured_gateway(run, loaded, for_one_call=True) as gateway:
        if not opened.is_default:
            await open_task(gateway, TaskKey(call.principal, call.arguments["task_id"]), opened)
        report = await gateway.call(call)
        assert isinstance(report, ProcessResult)
        return report, await _kept_output(gateway, call, report)


async def _tell_kept(folder: Path | None, task: TaskKey) -> None:
    """Say that a task has nothing but kept files, which a command beside the servers does not see."""
    import anyio.to_thread

    from taskcell.deployment.kept import has_kept

    if folder is not None and await anyio.to_thread.run_sync(has_kept, folder, task):
        print(  # noqa: T201
            f"taskcell: No running server has the task {task.task!r}. Its files are kept for its next call by an MCP "
            "client; this command runs without them, in a sandbox of its own.",
            file=sys.stderr,
        )


async def _kept_output(gateway: Gateway, call: ToolCall, result: ProcessResult) -> Mapping[str, Piece]:
    """Both streams' bytes as they were written, by name; nothing where the output went with its sandbox."""
    from taskcell.process.kept_output import read_piece
    from taskcell.supervisor.protocol import Stream
    from taskcell.tools.process_calls import find_process

    task = TaskKey(call.principal, result.task_id)
    with suppress(UnknownProcess, SandboxLost):
        _, record = await find_process(gateway.pool, task, result.process_id)
        return {stream.name: await read_piece(record.process, stream, 0, KEPT_MAX) for stream in Stream}
    return {}


def _show(result: ProcessResult, kept: Mapping[str, Piece], *, raw: bool) -> int:
    for name, stream, text in (("STDOUT", sys.stdout, result.stdout), ("STDERR", sys.stderr, result.stderr)):
        _write(stream, kept[name].data if name in kept else text.encode("utf-8", "replace"), raw=raw)
        if name in kept and kept[name].lost:
            print(f"taskcell: The first {kept[name].lost:,} bytes of {name.lower()} were not kept.", file=sys.stderr)  # noqa: T201
    if result.status is not Status.EXITED:
        print(f"taskcell: {result.ending()}", file=sys.stderr)  # noqa: T201
    for note in result.notes:
        _write(sys.stderr, f"taskcell: {note}\n".encode("utf-8", "replace"), raw=False)
    return EXIT_FAILED if result.exit_code is None else result.exit_code


def _write(stream: Any, data: bytes, *, raw: bool) -> None:
    """Raises TaskcellError when the output cannot be written; nothing is written to a closed stream."""
    if stream is None:
        return
    if stream.isatty() and not raw:
        data = harmless(data.decode("utf-8", "replace")).encode("utf-8", "replace")
    try:
        stream.buffer.write(data)
        stream.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise TaskcellError(f"The output could not be written: {error.strerror}. The command has run.") from error
