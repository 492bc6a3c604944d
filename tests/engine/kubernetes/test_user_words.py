"""What users choose never comes to an API server in a form that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from object_rules import faults, immutable_faults
from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.kubernetes import pod
from taskcell.engine.kubernetes.disks import claim_of
from taskcell.model import TaskKey
from taskcell.profile.build import terminal_profile

PLAIN = terminal_profile(Settings())
ODD = ["", ".", "..", "a/b", "-x-", "é", "a\nb", "a\0b", "x" * 100_000, "\ud800", "🦊", " ", "A_b.c-", "*", "\x85"]


def manifest(word: str) -> dict[str, Any]:
    """The pod of a task whose owner, deployment and files are named so; names of profiles are held by the policy."""
    labels = {"taskcell": "1", "taskcell.deployment": word, "taskcell.instance": word, "taskcell.task": word}
    workspace = Workspace(1 << 20, f"taskcell-data-{word}", persistent=True)
    spec = ContainerSpec(POLICY.authorize_profile(PLAIN), "taskcell-1", workspace, labels, 60.0)
    return pod.manifest(spec, "taskcell-supervisor-1", 1000.0, claim_of(workspace.name))


@given(st.text(max_size=200))
def test_any_word_becomes_labels_and_names_that_kubernetes_takes(word: str) -> None:
    made = manifest(word)
    made["metadata"]["annotations"].pop(pod.TASK_FILES)  # text of any kind may stand there, up to a size
    assert list(faults(made)) == []


@pytest.mark.parametrize("word", ODD, ids=range(len(ODD)))
def test_odd_words_of_tasks_and_principals_are_digests_where_a_cluster_sees_them(word: str) -> None:
    key = TaskKey(word, word)
    assert pod.label(key.digest) == key.digest
    assert (
        list(faults({"metadata": {"name": f"taskcell-{key.digest}-1", "labels": {"a": pod.label(key.digest)}}})) == []
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "A"},
        {"name": "a_b"},
        {"name": "x" * 254},
        {"name": "a", "labels": {"k": "x" * 64}},
        {"name": "a", "labels": {"k": "-x"}},
        {"name": "a", "labels": {"/k": 1}},
        {"name": "a", "annotations": {"a b": ""}},
        {"name": "a", "annotations": {"k": "x" * (1 << 18)}},
    ],
    ids=lambda wrong: str(wrong)[:30],
)
def test_the_rules_refuse_what_a_real_server_does(wrong: dict[str, Any]) -> None:
    assert list(faults({"metadata": wrong}))


def test_the_rules_hold_sizes_and_what_may_not_change() -> None:
    assert list(faults({"metadata": {"name": "a"}, "binaryData": {"x": "y" * (1 << 20)}}))
    map_ = {"metadata": {"name": "a"}, "immutable": True, "data": {"a": "b"}}
    assert list(immutable_faults(map_, map_ | {"data": {}}, "configmaps"))
    assert list(immutable_faults({"spec": {"containers": []}}, {"spec": {"containers": [1]}}, "pods"))
    assert not list(immutable_faults({"spec": {}}, {"spec": {}, "status": {"phase": "Failed"}}, "pods"))
