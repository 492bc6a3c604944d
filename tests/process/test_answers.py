"""The output in an answer: what a terminal would show, within the answer's characters, while the bytes are kept."""

from __future__ import annotations

import unicodedata

import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.model import ProcessResult, TaskKey
from taskcell.process.kept_output import read_piece
from taskcell.process.result import ENDING_CHARS, NOTE_MARKS
from taskcell.supervisor.protocol import Stream
from taskcell.tools.process_calls import find_process
from timed_out import timed_out

pytestmark = pytest.mark.anyio

KEY = TaskKey("local", "t")
#: Takes a moment to write, so that a page may end anywhere in it.
PROGRESS = r"for i in $(seq 5000); do printf '\rDownloading %d/5000' $i; done"
FRAMES = "".join(f"\rDownloading {i}/5000" for i in range(1, 5001)).encode()


def controls(result: ProcessResult) -> set[str]:
    text = "".join(str(value) for value in result.structured().values())
    return {character for character in text if unicodedata.category(character) == "Cc"}


async def kept(task: Task, process_id: str, stream: Stream = Stream.STDOUT) -> bytes:
    _, record = await find_process(task.gateway.pool, KEY, process_id)
    return (await read_piece(record.process, stream, 0, 1 << 24)).data


async def test_five_thousand_frames_of_progress_are_one_line_and_the_bytes_are_kept(gateway: GatewayFactory) -> None:
    async with gateway(engine="local") as gw:
        task = Task(gw)
        answered = await task.terminal(f"{PROGRESS}; echo; echo done")
        assert answered.stdout == "Downloading 5000/5000\ndone\n"
        assert (answered.truncated, answered.omitted_bytes, answered.notes) == (False, 0, ())
        assert (await task.ask("poll", answered.process_id)).stdout == answered.stdout
        assert (await task.ask("poll", answered.process_id, cursor=0)).stdout == answered.stdout
        assert await kept(task, answered.process_id) == FRAMES + b"\ndone\n"


async def test_pages_of_progress_are_a_line_each_and_leave_no_byte_out(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal(PROGRESS, background=True)
        cursor, shown = 0, []
        while cursor < len(FRAMES):
            page = await task.ask("poll", started.process_id, cursor=cursor, wait=20)
            assert page.cursor is not None
            assert page.cursor > cursor or page.status.value == "running"
            cursor, shown = page.cursor, [*shown, page.stdout]
        assert all("\n" not in text and text.count("Downl") <= 1 for text in shown)
        assert shown[-1].endswith("5000/5000")


async def test_no_control_character_leaves_but_for_a_terminals_escapes(gateway: GatewayFactory) -> None:
    line = r"printf 'a\0b\a\016c\177\302\205d\033[31mred\033[0m\033]0;t\007 N\bN\r\n\tend'"
    async with gateway(engine="local") as gw:
        task = Task(gw)
        piped = await task.terminal(line)
        assert piped.stdout == "a␀bcdred N\n\tend"
        assert controls(piped) == {"\t", "\n"}
        terminal = await task.terminal(line, pty=True)
        assert terminal.stdout == "a␀bcd\x1b[31mred\x1b[0m N\n\tend"
        assert (await task.terminal(line, pty=True, strip_ansi=True)).stdout == piped.stdout
        assert await kept(task, piped.process_id) == (
            b"a\0b\a\x0ec\x7f\xc2\x85d\x1b[31mred\x1b[0m\x1b]0;t\x07 N\bN\r\n\tend"
        )


async def test_what_is_begun_when_a_call_waits_no_longer_is_in_the_next_answer(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        for pty, rest in ((False, "äred\n"), (True, "ä\x1b[31mred\n")):
            first = await task.terminal(r"printf 'x\303'; sleep 1.3; printf '\244\033[31mred\n'", pty=pty, wait=0.5)
            assert (first.status.value, first.stdout, first.cursor) == ("running", "x", 1)
            last = await task.ask("wait", first.process_id, cursor=first.cursor, wait=20)
            assert last.stdout == rest
        halved = await task.terminal(r"printf 'x\033[3'; sleep 1.3; printf '1mred\n'", wait=0.5)
        assert (halved.stdout, halved.cursor) == ("x", 1)
        assert (await task.ask("wait", halved.process_id, cursor=1, wait=20)).stdout == "red\n"


@pytest.mark.parametrize("output_chars", [200, 700, 3000])
async def test_all_the_text_of_an_answer_is_bounded_its_notes_too(gateway: GatewayFactory, output_chars: int) -> None:
    def size(result: ProcessResult) -> int:
        notes = sum(len(note) + NOTE_MARKS for note in (*result.notes, result.left_out) if note)
        return len(result.stdout) + len(result.stderr) + notes + ENDING_CHARS

    async with gateway(f"[limits]\noutput_chars = {output_chars}\n", engine="local") as gw:
        task = Task(gw)
        gone = "d" * 200
        await task.terminal(f"mkdir -p {gone}/{gone} && cd {gone}/{gone} && rm -rf ../../{gone}")
        answers = [await task.terminal("trap : DEBUG; seq 100000")]
        for bound in ("timeout", "wait"):
            run = lambda seconds, bound=bound: task.terminal("seq 100000; sleep 600", **{bound: seconds})  # noqa: E731
            answers.append(await timed_out(run, lambda answer: bool(answer.stdout)))
        answers += [await task.ask(action, answers[-1].process_id) for action in ("poll", "kill", "poll")]
        answers += [await task.ask("poll", answers[0].process_id, cursor=cursor) for cursor in (0, 100)]
        for answer in answers:
            assert size(answer) <= output_chars
            assert answer.stdout
        assert all(answer.notes for answer in answers[:3])
