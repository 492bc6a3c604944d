"""Answers: the text for the model, the structure for the client, and what counts as an error."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mcp_types import TextContent

from taskcell.mcp.answer import Failure, answer
from taskcell.model import ProcessResult, Status
from taskcell.tools.describe import RUN_SCHEMA
from taskcell.tools.sandbox import SANDBOX_SCHEMA, SandboxInfo, SandboxReport
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


def text_of(result: Any) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


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
    assert replace(DONE, **changes).text() == text


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
    result = answer(replace(DONE, stdout=stdout, notes=(note,)))
    result.model_dump_json()
    Draft202012Validator(RUN_SCHEMA).validate(result.structured_content)


def test_halves_of_surrogate_pairs_are_replaced_and_nul_is_kept() -> None:
    result = answer(replace(DONE, stdout="a\ud800b\0c"))
    assert result.structured_content is not None
    assert result.structured_content["stdout"] == "a\ufffdb\0c"
    assert "a\ufffdb\0c" in text_of(result)
    assert text_of(answer(Failure("no \udfff"))) == "no \ufffd"


@given(
    st.builds(
        ProcessResult,
        omitted_bytes=st.integers(0),
        duration_ms=st.integers(0),
        survivors=st.none() | st.integers(0),
    )
)
def test_every_result_answers_what_the_schema_says(result: ProcessResult) -> None:
    Draft202012Validator(RUN_SCHEMA).validate(answer(result).structured_content)


@given(
    st.builds(SandboxReport, sandboxes=st.tuples(st.builds(SandboxInfo, age_s=st.floats(0), processes=st.integers(0))))
)
def test_every_report_on_sandboxes_answers_what_the_schema_says(report: SandboxReport) -> None:
    Draft202012Validator(SANDBOX_SCHEMA).validate(answer(report).structured_content)


def test_both_schemas_are_valid_schemas_with_a_description_for_each_field() -> None:
    for schema in (RUN_SCHEMA, SANDBOX_SCHEMA):
        Draft202012Validator.check_schema(schema)
        assert all(field.get("description") for field in schema["properties"].values())
