"""Who gets what dead servers left, without an engine: no files are lost, and none without a word."""

from __future__ import annotations

from dataclasses import replace

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.model import TaskKey
from taskcell.pool.ending_notes import MAX_REMEMBERED, MAX_WRITTEN, Endings
from taskcell.pool.siblings import share_out
from taskcell.schema.properties import MAX_TASK_ID

BASE = SandboxRecord(
    container="c",
    name="n",
    principal="local",
    task="t",
    profile="terminal",
    fingerprint="f",
    nonce="n",
    workspace="v",
    is_owner=True,
    is_in_memory=True,
    created=1.0,
    idle_since=10.0,
)
TASK = BASE.key


def beside(number: int, task: str = "t") -> TaskKey:
    return TaskKey("local", f"{task}~{number}")


def of(workspace: str, **changed: object) -> SandboxRecord:
    return replace(BASE, container=f"c-{workspace}-{changed}", workspace=workspace, **changed)  # type: ignore[arg-type]


def test_the_files_that_were_used_last_are_the_tasks_and_others_get_a_task_beside_it() -> None:
    shares = share_out([of("old", idle_since=5.0), of("busy", idle_since=0.0), of("new", idle_since=9.0)], ())
    assert {share.task: share.records[0].workspace for share in shares} == {
        TASK: "busy",
        beside(2): "new",
        beside(3): "old",
    }
    assert all(share.had == TASK and share.records[0].key == share.task for share in shares)
    assert all(record.adopted for share in shares for record in share.records)


def test_sandboxes_with_the_same_files_stay_together_with_the_last_used_one_first() -> None:
    jq, terminal = of("v", profile="jq", idle_since=8.0), of("v", idle_since=9.0)
    (share,) = share_out([jq, terminal], ())
    assert [record.profile for record in share.records] == ["terminal", "jq"]


def test_a_task_that_this_server_has_keeps_its_own_files_and_the_name_of_no_other_task_is_taken() -> None:
    shares = share_out([of("theirs"), of("v", task="t~2")], {TASK, beside(3)})
    assert {share.had: share.task for share in shares} == {TASK: beside(4), beside(2): beside(2)}


def test_on_disk_all_sandboxes_of_a_task_have_the_same_files() -> None:
    records = [of("folder", is_in_memory=False), of("folder", is_in_memory=False, idle_since=0.0)]
    (share,) = share_out(records, ())
    assert (share.task, len(share.records)) == (TASK, 2)
    (share,) = share_out(records, {TASK})
    assert (share.task, share.had) == (None, TASK)


def test_a_name_beside_a_long_one_is_a_valid_name() -> None:
    long = "x" * MAX_TASK_ID
    shares = share_out([of("a", task=long), of("b", task=long)], ())
    assert sorted(len(share.records[0].task) for share in shares) == [MAX_TASK_ID, MAX_TASK_ID]


RECORDS = st.lists(
    st.builds(
        of,
        st.sampled_from("abcde"),
        task=st.sampled_from(["t", "t~2", "u"]),
        profile=st.sampled_from(["terminal", "jq"]),
        principal=st.sampled_from(["local", "other"]),
        idle_since=st.integers(0, 5).map(float),
    )
)
KEYS = st.sets(st.builds(TaskKey, st.just("local"), st.sampled_from(["t", "t~2", "t~3", "u"])))


@given(RECORDS, KEYS)
def test_all_files_get_a_task_of_the_same_principal_and_no_two_get_the_same_one(
    records: list[SandboxRecord], taken: set[TaskKey]
) -> None:
    shares = share_out(records, taken)
    assert sum(len(share.records) for share in shares) == len(records)
    tasks = [share.task for share in shares if share.task is not None]
    assert len(tasks) == len(set(tasks)) == len({(record.key, record.workspace) for record in records})
    assert not taken & set(tasks)
    for share in shares:
        assert {record.principal for record in share.records} == {share.had.principal}
        assert len({record.workspace for record in share.records}) == 1


# --- what is to be said --------------------------------------------------------------------------------------------


def test_a_sentence_for_a_task_is_said_once_and_survives_its_server() -> None:
    first = Endings()
    first.tell(TASK, "One.")
    first.tell(TASK, "One.")
    first.tell(TASK, "Two.")
    first.remember((TASK, "terminal"), "had died")
    second = Endings()
    second.restore(first.records())
    assert second.take_told(TASK) == ("One.", "Two.")
    assert second.take_told(TASK) == ()
    assert second.take((TASK, "terminal")) == "had died"
    assert second.records() == []


def test_closing_a_task_on_purpose_makes_no_word_of_its_end_but_what_another_server_had_is_still_said() -> None:
    endings = Endings()
    endings.remember((TASK, "terminal"), "had died")
    endings.tell(TASK, "Files are beside it.")
    endings.forget(TASK)
    assert endings.take((TASK, "terminal")) == ""
    assert endings.take_told(TASK) == ("Files are beside it.",)


def test_a_note_is_not_said_before_the_call_has_ended_and_not_at_all_where_it_was_cancelled() -> None:
    endings = Endings()

    async def call(*, cancel: bool) -> None:
        with anyio.CancelScope() as scope, endings.telling(TASK, ["One."]):
            assert [record.text for record in endings.records()] == ["One."]
            if cancel:
                scope.cancel()
            await anyio.lowlevel.checkpoint()

    anyio.run(lambda: call(cancel=True))
    assert endings.take_told(TASK) == ("One.",)
    anyio.run(lambda: call(cancel=False))
    assert endings.records() == []


def test_what_is_remembered_and_written_is_bounded_and_the_newest_stays() -> None:
    endings = Endings()
    for number in range(MAX_REMEMBERED + 5):
        endings.remember((TaskKey("local", str(number)), "terminal"), "ended")
        endings.tell(TaskKey("local", str(number)), "Said.")
    assert endings.take((TaskKey("local", "4"), "terminal")) == ""
    assert endings.take_told(TaskKey("local", "5")) == ("Said.",)
    written = endings.records()
    assert len(written) == 2 * MAX_WRITTEN
    assert written[-1] == NoteRecord("local", str(MAX_REMEMBERED + 4), "terminal", "ended")
