"""`wait` with `until`: the call returns as soon as the output has a match."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from observe import HOST_TIMEOUT, eventually
from taskcell.errors import BadArgument
from taskcell.process.until import LINE_SHOWN
from taskcell.tools.process_report import ProcessReport

pytestmark = pytest.mark.anyio

#: Prints what stands in the file `next`, whenever it is there, and takes it away.
ECHO = "while :; do if [ -e next ]; then cat next; rm next; fi; sleep 0.02; done"


async def until(task: Task, process_id: str, pattern: str, **arguments: object) -> ProcessReport:
    with anyio.fail_after(2 * HOST_TIMEOUT):
        return await task.process("wait", process_id, until=pattern, **{"wait": HOST_TIMEOUT, **arguments})


async def say(task: Task, text: str) -> None:
    """Have the process that runs ECHO print a text: all at once, for a file appears by a rename."""
    await task.terminal("cat > .new && mv .new next", stdin=text)


def notes(report: ProcessReport) -> str:
    assert report.result is not None
    return " ".join(report.result.notes)


async def test_a_server_is_waited_for_until_it_listens_and_the_line_is_named(task: Task) -> None:
    started = await task.terminal("echo starting; sleep 0.3; echo 'Listening on port 8080'; sleep 600", background=True)
    report = await until(task, started.process_id, r"[Ll]istening on \w+ \d+")
    assert report.result is not None
    assert report.result.status.value == "running"
    assert report.result.stdout == "starting\nListening on port 8080\n"
    assert "'until' matched the line 'Listening on port 8080'." in notes(report)
    assert report.structured()["matched"] == "Listening on port 8080"
    assert not report.is_error


async def test_what_was_printed_before_the_call_counts_unless_a_cursor_says_otherwise(task: Task) -> None:
    started = await task.terminal(f"echo ready; {ECHO}", background=True)
    first = await until(task, started.process_id, "^ready$")
    assert first.result is not None
    again = await until(task, started.process_id, "^ready$", wait=0)
    assert again.structured()["matched"] == "ready"
    cursor = first.result.cursor
    beyond = await until(task, started.process_id, "ready", cursor=cursor, wait=0.2)
    assert (beyond.structured()["matched"], beyond.result and beyond.result.stdout) == (None, "")
    assert "'until' did not match within 0.2 s; the output until then: 6 bytes." in notes(beyond)
    async with anyio.create_task_group() as group:
        group.start_soon(say, task, "ready again\n")
        news = await until(task, started.process_id, "ready", cursor=cursor)
    assert news.structured()["matched"] == "ready again"


async def test_a_match_crosses_pieces_and_lines_and_characters_that_come_in_two(task: Task) -> None:
    started = await task.terminal(
        r"printf 'one fi'; sleep 0.2; printf 'sh\nBEG\303'; sleep 0.2; printf '\244IN\nmiddle\nE'; sleep 0.2; "
        "printf 'ND of it\\n'; sleep 600",
        background=True,
    )
    assert (await until(task, started.process_id, "fish$")).structured()["matched"] == "one fish"
    assert (await until(task, started.process_id, "BEGäIN$")).structured()["matched"] == "BEGäIN"
    whole = await until(task, started.process_id, r"^BEG\wIN\n(?s:.*)^END of")
    assert whole.structured()["matched"] == "BEGäIN"


async def test_a_prompt_without_a_line_end_and_a_number_that_goes_on(task: Task) -> None:
    started = await task.terminal("printf 'port 80'; sleep 0.03; printf '80\\nname? '; sleep 600", background=True)
    assert (await until(task, started.process_id, r"port \d+$")).structured()["matched"] == "port 8080"
    assert (await until(task, started.process_id, r"\? $")).structured()["matched"] == "name?"


async def test_the_text_is_what_a_model_sees_without_colours_and_overwritten_frames(task: Task) -> None:
    started = await task.terminal(
        r"printf '\033[32mrea\033[1mdy\033[0m in 3 s\n'; for i in 1 2 3; do printf '\rstep %s/3' $i; done; sleep 600",
        background=True, pty=True,
    )  # fmt: skip
    report = await until(task, started.process_id, r"^ready in \d")
    assert report.structured()["matched"] == "ready in 3 s"
    assert (await until(task, started.process_id, "^step 3/3$")).structured()["matched"] == "step 3/3"
    assert (await until(task, started.process_id, "step 1/3", wait=0.2)).structured()["matched"] is None


async def test_a_process_that_ends_without_a_match_ends_the_wait(task: Task) -> None:
    started = await task.terminal("echo compiling; sleep 0.3; echo 'error: no'; exit 2", background=True)
    report = await until(task, started.process_id, "Finished", wait=3600)  # until's own bound ends it before that
    assert report.result is not None
    assert (report.result.exit_code, report.result.stdout) == (2, "compiling\nerror: no\n")
    assert "The process ended, and its output has no match of 'until'." in notes(report)
    late = await until(task, started.process_id, "^error: (.*)$")
    assert late.structured()["matched"] == "error: no"


async def test_the_last_line_counts_though_the_process_ends_with_it(task: Task) -> None:
    for _ in range(5):
        started = await task.terminal("printf done", background=True)
        assert (await until(task, started.process_id, "done$")).structured()["matched"] == "done"


async def test_both_streams_of_a_skill_are_searched(engine: str, gateway: GatewayFactory, tmp_path: Path) -> None:
    skill = 'version="1"\n[skills.sh]\ndescription="s"\nsource="docker:taskcell/base:latest"\n'
    (tmp_path / "m.toml").write_text(skill + 'docker.entrypoint=["sh","-c"]\n')
    async with gateway('manifests=["m.toml"]\n' + LIMITS, engine=engine) as gw:
        task = Task(gw)
        started = await task.call("sh", args=["echo out; sleep 1.3; echo 'bad luck' >&2; sleep 600"])
        report = await until(task, started.process_id, "luck", cursor=4)
        assert report.structured()["matched"] == "bad luck"


async def test_a_match_deep_in_a_long_output_is_named_though_the_answer_leaves_it_out(task: Task) -> None:
    started = await task.terminal("seq 1 60000; echo needle; seq 1 60000; sleep 600", background=True)
    report = await until(task, started.process_id, "needle")
    assert report.result is not None
    assert "needle" not in report.result.stdout
    assert "'needle'" in notes(report)
    assert (await until(task, started.process_id, "^59999\n60000\nneedle$")).structured()["matched"] == "59999"


async def test_a_line_of_a_megabyte_is_searched_whole_and_has_one_beginning(task: Task) -> None:
    fill = "head -c 500000 /dev/zero | tr '\\0' a"
    started = await task.terminal(f"printf needle; {fill}; printf hay; {fill}; echo end; sleep 600", background=True)
    await until(task, started.process_id, "end$")
    for pattern, shown in (("^needlea", "needleaaa"), ("ahaya", "ahaya"), ("aend$", "aaaend")):
        matched = (await until(task, started.process_id, pattern, wait=0)).structured()["matched"]
        assert shown in matched
        assert len(matched) <= LINE_SHOWN
    assert (await until(task, started.process_id, "^a", wait=0)).structured()["matched"] is None
    assert (await until(task, started.process_id, "^a", cursor=100, wait=0)).structured()["matched"] is not None


async def test_a_flood_holds_up_neither_the_wait_nor_other_calls(task: Task) -> None:
    started = await task.terminal("yes", background=True)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: until(task, started.process_id, "no", wait=2))
        for _ in range(10):
            with anyio.fail_after(HOST_TIMEOUT):
                assert (await task.terminal("echo on")).stdout == "on\n"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", r"(?:a*)*b", r"(\w+\s?)*$"])
async def test_a_pattern_that_backtracks_for_ever_costs_one_clear_answer(gateway: GatewayFactory, pattern: str) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        line = "head -c 1000000 /dev/zero | tr '\\0' a; printf '!\\n'; sleep 600"
        started = await task.terminal(line, background=True)
        await until(task, started.process_id, "!$")
        answered = 0

        async def others() -> None:
            nonlocal answered
            while True:
                await task.process("list")
                answered += 1
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as group:
            group.start_soon(others)
            began = time.process_time()
            with pytest.raises(BadArgument, match="'until' takes too long"):
                await until(task, started.process_id, pattern)
            # The search costs seconds of processor time, none of them in this process.
            assert time.process_time() - began < 1
            group.cancel_scope.cancel()
        assert answered


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "'until' is not a regular expression: missing \\), unterminated subpattern at position 0."),
        ("a{1,2", None),
        ("*", "'until' is not a regular expression: nothing to repeat"),
        ("(" * 490 + ")" * 490, None),
        ("x" * 1001, "'until' is longer than 1000 characters"),
        ("\ud800", "'until' is not valid Unicode at character 0"),
        ("(?a)(?u)x", "'until' is not a regular expression: ASCII and UNICODE flags are incompatible."),
        ("(?P<a>x)(?P<a>y)", "redefinition of group name 'a'"),
        ("x{99999999999}", "the repetition number is too large"),
    ],
)
async def test_a_broken_pattern_is_one_sentence(gateway: GatewayFactory, pattern: str, says: str | None) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("echo a{1,2; sleep 600", background=True)
        if says is None:
            await until(task, started.process_id, pattern)
            return
        with pytest.raises(BadArgument, match=says) as refused:
            await until(task, started.process_id, pattern)
        assert str(refused.value).count("\n") == 0
        assert str(refused.value).endswith(".")


async def test_a_pattern_that_takes_all_memory_costs_one_clear_answer(gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("seq 100000; sleep 600", background=True)
        with pytest.raises(BadArgument, match=r"'until' (takes too long|cannot be searched for)"):
            await until(task, started.process_id, r"(?s)(?:(.)(.)(.)(.)(.)(.)(.)(.)|.)*(?=never)")


@pytest.mark.parametrize("action", ["poll", "list", "kill"])
async def test_until_means_nothing_for_other_actions(gateway: GatewayFactory, action: str) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("sleep 600", background=True)
        report = await task.process(action, started.process_id, until="(")
        assert "matched" not in report.structured()


async def test_a_cursor_past_the_end_is_told_at_once(task: Task) -> None:
    started = await task.terminal("echo a; sleep 600", background=True)
    await until(task, started.process_id, "a")
    with anyio.fail_after(10), pytest.raises(BadArgument, match="past the end: the process has written 2 bytes"):
        await until(task, started.process_id, "b", cursor=3)


async def test_a_cancelled_wait_leaves_no_program_behind_and_the_process_alone(gateway: GatewayFactory) -> None:
    def programs() -> set[str]:
        found = set()
        for entry in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # a thread or a child that has just ended
                for pid in (entry / "children").read_text().split():
                    if b"pattern_program" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.add(pid)
        return found

    async def none_is_left() -> bool:
        # A program whose start was cancelled is killed, and dies within a moment.
        return await anyio.to_thread.run_sync(lambda: eventually(lambda: not programs()))

    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        started = await task.terminal("cat", background=True)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: until(task, started.process_id, "x"))
            with anyio.fail_after(20):
                while not programs():
                    await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        assert await none_is_left()
        await task.process("write", started.process_id, data="x\n")
        assert (await until(task, started.process_id, "x")).structured()["matched"] == "x"
        assert await none_is_left()


async def test_a_sandbox_that_is_closed_under_the_wait_ends_it(task: Task) -> None:
    started = await task.terminal("sleep 600", background=True)
    async with anyio.create_task_group() as group:
        reports: list[ProcessReport] = []

        async def wait() -> None:
            reports.append(await until(task, started.process_id, "never"))

        group.start_soon(wait)
        await anyio.sleep(0.3)
        await task.sandbox("close")
    (report,) = reports
    assert report.result is not None
    assert report.result.status.value == "killed"
