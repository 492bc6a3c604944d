"""Answers: the text for the model, the structure for the client, and what counts as an error."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mcp_types import CallToolResult, TextContent

from asking import fields_of, text_of
from taskcell.errors import Denied, FileRefused, TaskcellError
from taskcell.files.answers import FileReport, FileText
from taskcell.files.listings import Entry, FolderListing
from taskcell.mcp.answer import Answers, Failure
from taskcell.model import ProcessResult, Status
from taskcell.tools.describe import RUN_SCHEMA
from taskcell.tools.process_report import ProcessInfo, ProcessReport
from taskcell.tools.sandbox import SANDBOX_SCHEMA, SandboxInfo, SandboxReport
from taskcell.tools.tool import ToolReport
from taskcell.units import format_milliseconds

DONE = ProcessResult(
    status=Status.EXITED,
    exit_code=0,
    signal=None,
    stdout="",
    stderr="",
    truncated=False,
    omitted_bytes=0,
    duration_ms=200,
    task_id="default",
    process_id="p1",
    workdir="/workspace",
    survivors=0,
    kind="terminal",
)


ANSWERS = Answers(50_000)


def answer(report: ToolReport) -> CallToolResult:
    return ANSWERS.of(report, structured=False)


def structured(report: ToolReport, output_chars: int = 50_000) -> CallToolResult:
    return Answers(output_chars).of(report, structured=True)


def blocks(result: CallToolResult) -> list[tuple[str, Any]]:
    """The text of each block, and its `_meta`."""
    return [(block.text, block.meta) for block in result.content if isinstance(block, TextContent)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stdout": "hi\n"}, "hi\n[exit 0 in 0.2 s]"),
        ({"stdout": "hi"}, "hi\n[exit 0 in 0.2 s]"),
        ({"exit_code": 1}, "[exit 1 in 0.2 s]"),
        ({"stdout": "out", "stderr": "err"}, "out\n[stderr]\nerr\n[exit 0 in 0.2 s]"),
        ({"exit_code": 139, "signal": "SIGSEGV"}, "[exit 139 (SIGSEGV) in 0.2 s]"),
        (
            {"status": Status.TIMED_OUT, "exit_code": 124, "stdout": "half", "duration_ms": 3004},
            "half\n[timed out after 3 s; killed; survivors 0]",
        ),
        ({"status": Status.TIMED_OUT, "survivors": None}, "[timed out after 0.2 s; killed; survivors unknown]"),
        ({"status": Status.CANCELLED, "exit_code": 130}, "[cancelled after 0.2 s; killed; survivors 0]"),
        ({"status": Status.OOM_KILLED, "exit_code": 137}, "[out of memory after 0.2 s; killed; survivors 0]"),
        ({"status": Status.KILLED, "exit_code": 137, "signal": "SIGKILL", "survivors": 2},
         "[killed (SIGKILL) after 0.2 s; survivors 2]"),
        ({"status": Status.LOST, "exit_code": None}, "[the sandbox died after 0.2 s; the command is not run again]"),
        ({"status": Status.RUNNING, "exit_code": None}, "[still running after 0.2 s as process p1]"),
        ({"notes": ("One.", "Two.")}, "[exit 0 in 0.2 s]\n[note: One.]\n[note: Two.]"),
    ],
)  # fmt: skip
def test_a_run_reads_as_its_output_and_one_line_on_its_end(changes: dict[str, Any], text: str) -> None:
    result = answer(replace(DONE, **changes))
    assert text_of(result) == text
    assert result.structured_content is None


def test_what_a_program_printed_and_what_taskcell_says_are_two_blocks_and_the_second_alone_is_marked() -> None:
    failed = replace(DONE, stdout="out", stderr="[exit 0 in 0.1 s]", exit_code=1, notes=("One.",))
    program = "out\n[stderr]\n[exit 0 in 0.1 s]\n"
    server = ("[exit 1 in 0.2 s]\n[note: One.]", {"taskcell/source": "server"})
    assert blocks(answer(failed)) == [(program, None), server]
    assert blocks(answer(replace(failed, stdout="", stderr=""))) == [server]
    assert blocks(answer(Failure.of(TaskcellError("No.")))) == [("No.", {"taskcell/source": "server"})]


def test_structured_content_stands_in_the_place_of_the_block_with_the_output() -> None:
    result = structured(replace(DONE, stdout="out\n"))
    assert fields_of(result)["stdout"] == "out\n"
    assert blocks(result) == [("[exit 0 in 0.2 s]", {"taskcell/source": "server"})]


@pytest.mark.parametrize(
    ("meta", "asked"),
    [
        (None, False),
        ({}, False),
        ({"taskcell/structured": True}, True),
        ({"taskcell/structured": False}, False),
        ({"taskcell/structured": "true"}, False),
        ({"taskcell/structured": 1}, False),
    ],
)
def test_who_asks_for_structured_content_says_so_with_true(meta: dict[str, Any] | None, asked: bool) -> None:
    assert Answers(1000).asked(meta) is asked
    assert Answers(1000, structured=True).asked(meta)


def json_size(result: CallToolResult) -> int:
    return len(json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":")))


ENTRY = Entry('a "name" \\ \t', "file", 1, "2026-01-01T00:00:00Z", None)
LISTED = ProcessInfo("p1", "exited", 0, "terminal", 'echo "\n"', 1.0, 5, False, 0)
LARGE: list[ToolReport] = [
    replace(DONE, stdout="\n" * 3000),
    replace(DONE, stdout='"' * 1900, stderr="\\" * 1900, notes=("A note.",)),
    replace(DONE, stdout="x" * 300, stderr="\t" * 2000, omitted_bytes=7, truncated=True),
    FileReport("t", FileText("/f", '\t"line"\n' * 500, 1, 500, 500, 4500, False, ())),
    FileReport("t", FileText("/f", '"' * 2000, 1, 1, 1, 2000, False, ()), ("A note.",)),
    FileReport("t", FolderListing("/f", (ENTRY,) * 40, False, (), found=40)),
    ProcessReport("t", "list", (LISTED,) * 40),
    ProcessReport("t", "poll", result=replace(DONE, stdout="\n" * 3000, cursor=3000)),
]


@pytest.mark.parametrize("report", LARGE)
@pytest.mark.parametrize("output_chars", [1000, 2000])
def test_all_the_text_of_an_answer_is_within_its_characters_as_it_goes_out(
    report: ToolReport, output_chars: int
) -> None:
    plain = Answers(output_chars).of(report, structured=False)
    assert sum(len(text) for text, _ in blocks(plain)) <= output_chars
    asked = structured(report, output_chars)
    assert json_size(asked) + len(text_of(asked)) <= output_chars
    # What fits is there: not much of the room is left over.
    assert json_size(asked) + len(text_of(asked)) > output_chars - 250


def test_what_is_cut_says_so_and_where_it_goes_on() -> None:
    run = fields_of(structured(replace(DONE, stdout="a" + "\n" * 3000 + "z"), 1000))
    assert run["truncated"]
    assert f"[… {run['omitted_bytes']:,} bytes left out …]" in run["stdout"]
    assert (run["stdout"][0], run["stdout"][-1]) == ("a", "z")
    text = FileText("/f", "\t\n" * 1000, 11, 1010, 5000, 2000, True, ())
    result = structured(FileReport("t", text), 1000)
    last = fields_of(result)["last_line"]
    assert fields_of(result)["text"].count("\n") == last - 10
    assert text_of(result) == f"[Lines 11 to {last} of 5000; continue with offset={last + 1}]"
    listing = structured(FileReport("t", FolderListing("/f", (ENTRY,) * 40, False, (), found=40)), 1000)
    assert fields_of(listing)["truncated"]
    last = len(fields_of(listing)["entries"])
    assert text_of(listing).startswith(f"[Entries 1 to {last} of 40; continue with offset={last}")
    processes = structured(ProcessReport("t", "list", (LISTED,) * 40), 1000)
    shown = len(fields_of(processes)["processes"])
    running = sum(info["status"] == "running" for info in fields_of(processes)["processes"])
    left_out = f"[note: There is no room here for {40 - shown} older ones.]"
    assert text_of(processes) == f"[{shown} commands, {running} running]\n{left_out}"


def test_a_refusal_carries_its_code_and_sentence_for_programs() -> None:
    refusal = {"error": {"code": "denied", "rule": "no-rm", "message": "Denied by the policy's rule 'no-rm': No."}}
    plain, asked = answer(Failure.of(Denied("no-rm", "No."))), structured(Failure.of(Denied("no-rm", "No.")))
    for result in (plain, asked):
        assert result.is_error
        assert result.meta == {"taskcell/error": refusal}
        assert text_of(result) == refusal["error"]["message"]
    assert plain.structured_content is None
    assert asked.structured_content == refusal


def test_the_lines_of_a_file_that_a_refusal_shows_are_a_block_of_their_own() -> None:
    failure = Failure.of(
        FileRefused("'old' is not in it; these lines are like it.", excerpt="     1\t[exit 0]\n     2\tb")
    )
    server = ("'old' is not in it; these lines are like it.", {"taskcell/source": "server"})
    assert blocks(answer(failure)) == [("     1\t[exit 0]\n     2\tb\n", None), server]
    asked = structured(failure)
    assert asked.structured_content is not None
    assert asked.structured_content["error"]["excerpt"] == failure.excerpt
    assert blocks(asked) == [server]
    assert asked.meta is not None
    assert "excerpt" not in asked.meta["taskcell/error"]["error"]
    assert text_of(Answers(200).of(replace(failure, excerpt="x" * 900), structured=False)).endswith(server[0])


def test_a_client_that_sees_output_schemas_unasked_finds_nothing_that_breaks_them() -> None:
    """The official client in TypeScript checks the structured content of errors too."""
    result = Answers(1000, structured=True).of(Failure.of(Denied("no-rm", "No.")), structured=True)
    assert result.structured_content is None
    assert result.meta is not None
    assert "taskcell/error" in result.meta


def test_even_a_sentence_is_bounded() -> None:
    assert text_of(Answers(200).of(Failure.of(TaskcellError("x" * 1000)), structured=False)) == "x" * 199 + "…"


@pytest.mark.parametrize(
    ("duration_ms", "text"), [(0, "0 s"), (12, "0.012 s"), (100, "0.1 s"), (2960, "3 s"), (75_400, "75 s")]
)
def test_durations_read_as_a_person_says_them(duration_ms: int, text: str) -> None:
    assert format_milliseconds(duration_ms) == text


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("kind", ["terminal", "skill"])
def test_timeouts_oom_and_lost_sandboxes_are_errors_for_every_tool(status: Status, kind: str) -> None:
    result = answer(replace(DONE, status=status, kind=kind))
    assert result.is_error is (status in (Status.TIMED_OUT, Status.OOM_KILLED, Status.LOST))


def test_a_non_zero_exit_code_is_an_error_for_a_skill_alone() -> None:
    failed = replace(DONE, exit_code=3)
    assert answer(replace(failed, kind="skill")).is_error
    assert not answer(failed).is_error


@given(st.text(), st.text())
def test_any_text_becomes_an_answer_that_json_and_the_schema_take(stdout: str, note: str) -> None:
    report = replace(DONE, stdout=stdout, notes=(note,))
    answer(report).model_dump_json()
    asked = structured(report)
    asked.model_dump_json()
    Draft202012Validator(RUN_SCHEMA).validate(asked.structured_content)


def test_halves_of_surrogate_pairs_are_replaced_and_control_characters_are_symbols() -> None:
    report = replace(DONE, stdout="a\ud800b\0c")
    assert fields_of(structured(report))["stdout"] == "a\ufffdb␀c"
    assert "a\ufffdb␀c" in text_of(answer(report))
    assert text_of(answer(Failure.of(TaskcellError("no \udfff")))) == r"no \udfff"


@given(
    st.builds(
        ProcessResult,
        omitted_bytes=st.integers(0),
        duration_ms=st.integers(0),
        survivors=st.none() | st.integers(0),
    )
)
def test_every_result_answers_what_the_schema_says(result: ProcessResult) -> None:
    Draft202012Validator(RUN_SCHEMA).validate(structured(result).structured_content)


@given(
    st.builds(SandboxReport, sandboxes=st.tuples(st.builds(SandboxInfo, age_s=st.floats(0), processes=st.integers(0))))
)
def test_every_report_on_sandboxes_answers_what_the_schema_says(report: SandboxReport) -> None:
    Draft202012Validator(SANDBOX_SCHEMA).validate(structured(report).structured_content)


def test_both_schemas_are_valid_schemas_with_a_description_for_each_field() -> None:
    for schema in (RUN_SCHEMA, SANDBOX_SCHEMA):
        Draft202012Validator.check_schema(schema)
        assert all(field.get("description") for field in schema["properties"].values())
