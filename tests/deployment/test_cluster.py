"""What holds on a cluster alone: Leases and clocks, who leads, hostile objects, and how often the API is asked."""

from __future__ import annotations

import base64
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_server import Refusal
from deployments import OnCluster, claims_of, on_cluster, tasks
from taskcell.deployment.base import Peer
from taskcell.deployment.cluster.members import RENEW_EVERY, SPREAD, TERM, part_of
from taskcell.deployment.opened import Opening
from taskcell.deployment.records import NoteRecord
from taskcell.engine.base import Container
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.environment import Environment
from taskcell.errors import EngineError, TaskcellError
from taskcell.model import TaskKey

pytestmark = pytest.mark.anyio

(TASK,) = tasks("t")
POD = "taskcell-a-1"


# --- who lives -------------------------------------------------------------------------------------------------------


async def test_a_server_lives_as_long_as_its_lease_is_renewed_and_a_term_longer(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await cluster.pass_time(5 * TERM)
    assert two.members.peer("a") == Peer("http://a.test:8765", "a")
    del cluster.living["a"]
    await cluster.pass_time(TERM - RENEW_EVERY)
    assert two.members.is_alive("a")
    await cluster.pass_time(RENEW_EVERY)
    assert not two.members.is_alive("a")
    assert (two.members.peer("a"), list(two.members.dead())) == (None, ["a"])
    assert await one.members.renew() is False
    await two.members.look()
    assert two.members.is_alive("a")


async def test_no_clock_of_another_machine_is_believed(cluster: OnCluster) -> None:
    await cluster.join("a")
    two = await cluster.join("b")
    (lease,) = [one for name, one in cluster.server.all("leases").items() if name.endswith("server-a")]
    for written in ("1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "garbage"):
        lease["spec"]["renewTime"] = written
        await two.members.look()
        assert two.members.is_alive("a")


async def test_who_has_not_looked_for_a_while_takes_nobody_for_dead(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    assert (await claims_of(one).claim(TASK, is_sent=True)).door is None
    cluster.clock.now += 10 * TERM  # the second one was stopped meanwhile; the first one was not
    assert two.members.has_lapsed
    await one.members.renew()
    claimed = await claims_of(two).claim(TASK, is_sent=True)
    assert claimed.door == Peer("http://a.test:8765", "a")


async def test_a_server_that_starts_gives_those_that_it_finds_a_term(cluster: OnCluster) -> None:
    await cluster.join("a")
    del cluster.living["a"]
    cluster.clock.now += 100 * TERM
    new = await cluster.join("b")
    assert new.members.is_alive("a")
    await cluster.pass_time(TERM)
    assert not new.members.is_alive("a")


async def test_a_lease_that_somebody_has_deleted_is_made_again(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await two.members.remove("a")  # it lives: that does nothing
    assert any(name.endswith("server-a") for name in cluster.server.all("leases"))
    path = "/apis/coordination.k8s.io/v1/namespaces/sandboxes/leases/"
    (name,) = [name for name in cluster.server.all("leases") if name.endswith("server-a")]
    await cluster.apis[0].call("DELETE", path + name)
    await one.renew()
    await two.members.look()
    assert two.members.peer("a") == Peer("http://a.test:8765", "a")
    assert claims_of(one).own == {TASK}


# --- who leads -------------------------------------------------------------------------------------------------------


async def test_all_servers_agree_who_leads_and_only_a_lost_ones_tasks_move(cluster: OnCluster) -> None:
    servers = [await cluster.join(name) for name in "abcd"]
    names = [TaskKey(principal, f"t{number}") for principal in ("ann", "bob") for number in range(100)]
    before = {task: servers[0].members.lead(task) for task in names}
    for server in servers:
        assert {task: server.members.lead(task) for task in names} == before
    assert set(before.values()) == set("abcd")
    del cluster.living["a"]
    await cluster.pass_time(TERM)
    after = {task: servers[1].members.lead(task) for task in names}
    assert {task for task in names if after[task] != before[task]} == {task for task in names if before[task] == "a"}


async def test_a_server_that_is_leaving_lives_and_leads_for_nothing(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await one.members.begin_to_leave()
    for server in (one, two):
        await server.members.look()
        assert {server.members.lead(TaskKey("ann", f"t{number}")) for number in range(50)} == {"b"}
    assert two.members.is_alive("a")


@given(st.text(), st.text())
def test_every_task_is_in_one_of_a_principals_parts(principal: str, task: str) -> None:
    assert 0 <= part_of(TaskKey(principal, task)) < SPREAD


async def test_a_call_goes_to_the_one_that_leads_unless_that_one_has_sent_it(cluster: OnCluster) -> None:
    servers = {name: await cluster.join(name) for name in "ab"}
    lead = servers["a"].members.lead(TASK)
    other = next(name for name in servers if name != lead)
    claimed = await claims_of(servers[other]).claim(TASK)
    assert (claimed.door, claimed.is_certain) == (Peer(f"http://{lead}.test:8765", lead), False)
    assert cluster.server.all("leases").keys() == {
        name for name in cluster.server.all("leases") if "server" in name
    }  # nothing was claimed
    assert (await claims_of(servers[other]).claim(TASK, is_sent=True)).door is None
    found = await claims_of(servers[lead]).claim(TASK)
    assert (found.door, found.is_certain) == (Peer(f"http://{other}.test:8765", other), True)


# --- what dead servers leave -----------------------------------------------------------------------------------------


async def test_pods_that_no_task_has_go_with_their_server(cluster: OnCluster) -> None:
    dying, heir = await cluster.join("a"), await cluster.join("b")
    warm = await cluster.sandbox(dying, "", 1)
    await cluster.pod("a", "taskcell-unfinished")
    mine = await cluster.sandbox(dying, "t", 3)
    await dying.write([warm, mine])
    await cluster.kill(dying)
    (left,) = [one async for one in heir.bequeathed()]
    assert left.sandboxes == (mine,)
    assert list(cluster.server.all("pods")) == ["taskcell-a-3"]


async def test_nothing_is_left_of_a_dead_server_in_the_end(cluster: OnCluster) -> None:
    dying, heir = await cluster.join("a"), await cluster.join("b")
    await claims_of(dying).claim(TASK, is_sent=True)
    await cluster.kill(dying)
    for _ in range(10):
        assert [one async for one in heir.bequeathed()] == []
    assert [name.partition("-")[2].partition("-")[2] for name in cluster.server.all("leases")] == ["server-b"]


async def test_what_a_task_was_opened_with_goes_on_though_it_has_no_sandbox(cluster: OnCluster) -> None:
    dying, heir = await cluster.join("a"), await cluster.join("b")
    opening = Opening(Environment("python"), {"by": "\udcff"}, 5.0)
    await claims_of(dying).claim(TASK, is_sent=True)
    dying.opened[TASK] = opening
    await claims_of(dying).note_opened()
    await claims_of(dying).release([TASK])  # nothing of it is here any more but this
    await cluster.kill(dying)
    for _ in range(10):
        assert [one async for one in heir.bequeathed()] == []
    assert (heir.opened, claims_of(heir).own) == ({TASK: opening}, {TASK})
    del heir.opened[TASK]
    await claims_of(heir).note_opened()
    await claims_of(heir).release([TASK])
    assert [name.partition("-")[2].partition("-")[2] for name in cluster.server.all("leases")] == ["server-b"]


async def test_nothing_is_asked_where_nothing_was_opened_since(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    await claims_of(one).claim(TASK, is_sent=True)
    one.opened[TASK] = Opening(labels={"a": "b"})
    await claims_of(one).note_opened()
    before = cluster.server.requests.copy()
    await claims_of(one).note_opened()
    assert cluster.server.requests == before


async def test_a_note_is_handed_over_once(cluster: OnCluster) -> None:
    dying, heir = await cluster.join("a"), await cluster.join("b")
    note = NoteRecord("local", "t", "", "A sentence.")
    await dying.write([], [note])
    await cluster.kill(dying)
    assert [one.notes async for one in heir.bequeathed()] == [(note,)]
    assert [one.notes async for one in heir.bequeathed()] == []


# --- two that believe to have one ------------------------------------------------------------------------------------


async def test_who_has_lost_a_pod_neither_writes_to_it_nor_ends_it(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    written = await cluster.sandbox(one, "t")
    await claims_of(one).claim(written.key, is_sent=True)
    await one.write([written])
    await cluster.kill(one)
    assert [left.sandboxes async for left in two.bequeathed()] == [(written,)]
    theirs = replace(written, adopted=True)
    await two.write([theirs])

    cluster.living["a"] = one
    await one.write([replace(written, task="another")])
    await one.write([])
    engine = KubernetesEngine(cluster.server.api())
    await engine.own_only("a")
    container = Container(written.container, POD, "", "", "", None)
    await engine.remove(container)
    await engine.stop(container.id)
    await engine.remove_workspace(container.id.rpartition("/c-")[0])
    assert [found.sandboxes for found in await two.servers() if found.instance == "b"] == [(theirs,)]
    assert await claims_of(one).check() == [written.key]

    engine_of_two = KubernetesEngine(cluster.server.api())
    await engine_of_two.own_only("b")
    await engine_of_two.remove_workspace(container.id.rpartition("/c-")[0])
    assert cluster.server.all("pods") == {}
    for made in (engine, engine_of_two):
        await made.aclose()


async def test_a_server_gives_up_a_claim_that_another_has_taken_when_it_looks(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await cluster.kill(one)
    assert (await claims_of(two).claim(TASK, is_sent=True)).dead == "a"
    assert not one.is_current
    await one.renew()
    assert claims_of(one).own == set()
    assert one.is_current
    await claims_of(one).release([TASK])
    assert (await claims_of(one).claim(TASK, is_sent=True)).door == Peer("http://b.test:8765", "b")


async def test_who_was_away_is_sure_of_nothing_until_it_has_seen_its_claims(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await cluster.kill(one)
    await claims_of(two).claim(TASK, is_sent=True)
    cluster.server.failing.add("GET leases")
    with pytest.raises(TaskcellError, match="failing"):
        await one.renew()
    assert not one.is_current
    cluster.server.failing.clear()
    await one.renew()
    assert one.is_current
    assert claims_of(one).own == set()


# --- bad objects, and an API that is away ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", "[" * 100_000, '{"container": 1}', '{"container": "a/b/c/d"}'])
async def test_an_annotation_that_no_server_wrote_is_as_good_as_none(cluster: OnCluster, text: str) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    written = await cluster.sandbox(one, "t")
    await one.write([written])
    cluster.server.all("pods")[POD]["metadata"]["annotations"]["taskcell.dev/record.c-other"] = text
    (lease,) = [lease for name, lease in cluster.server.all("leases").items() if name.endswith("server-a")]
    lease["metadata"]["annotations"]["taskcell.dev/notes"] = text
    (found,) = [server for server in await two.servers() if server.instance == "a"]
    assert (found.sandboxes, found.notes) == ((written,), ())


async def test_a_record_that_speaks_of_another_pod_is_not_used(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    first, second = await cluster.sandbox(one, "t", 1), await cluster.sandbox(one, "u", 2)
    await one.write([first, second])
    annotations = {name: pod["metadata"]["annotations"] for name, pod in cluster.server.all("pods").items()}
    for name, other in (("taskcell-a-1", "taskcell-a-2"), ("taskcell-a-2", "taskcell-a-1")):
        annotations[name]["taskcell.dev/record.c-x"] = annotations[other]["taskcell.dev/record.c-terminal"]
    (found,) = await one.servers()
    assert sorted(found.sandboxes, key=lambda each: each.container) == [first, second]


async def test_rights_that_the_account_lacks_are_named_and_asked_for_again(cluster: OnCluster) -> None:
    cluster.server.forbidden = {"delete leases", "create secrets"}
    one = cluster.make("a", "http://a.test:8765")
    with pytest.raises(EngineError, match="may not create secrets, delete leases in the namespace sandboxes"):
        await one.join("a")
    assert not cluster.server.all("secrets")
    cluster.server.forbidden.clear()
    await one.join("a")
    assert one.is_shared


@pytest.mark.parametrize("key", ["", "!!", base64.b64encode(b"short").decode()])
async def test_a_secret_that_is_no_key_is_named_and_the_next_call_asks_again(cluster: OnCluster, key: str) -> None:
    one = await cluster.join("a")
    (secret,) = cluster.server.all("secrets").values()
    whole, secret["data"]["key"] = secret["data"]["key"], key
    two = cluster.make("b", "http://b.test:8765")
    with pytest.raises(EngineError, match="is not a deployment's key"):
        await two.join("b")
    assert not two.is_shared
    secret["data"]["key"] = whole
    await two.join("b")
    assert two.key == one.key


async def test_when_the_api_is_away_nothing_is_claimed_and_what_was_to_be_written_is_written_later(
    cluster: OnCluster,
) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    written = await cluster.sandbox(one, "t")
    cluster.server.refusing = Refusal(500, "InternalError", "etcdserver: mvcc: database space exceeded")
    await one.write([written])
    with pytest.raises(TaskcellError, match="database space exceeded"):
        await claims_of(one).claim(TASK, is_sent=True)
    with pytest.raises(TaskcellError):
        await one.renew()
    assert claims_of(one).own == set()
    cluster.server.refusing = None
    await one.write([written])
    assert [found.sandboxes for found in await two.servers() if found.instance == "a"] == [(written,)]


async def test_how_busy_a_sandbox_is_costs_no_request_until_it_is_time(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    written = await cluster.sandbox(one, "t")
    await one.write([written])
    before = cluster.server.requests["PATCH pods"]
    for number in range(20):
        await one.write([replace(written, idle_since=float(number), processes=number % 2, commands=number)])
    assert cluster.server.requests["PATCH pods"] == before
    await one.records.flush(everything=True)
    assert cluster.server.requests["PATCH pods"] == before + 1
    (found,) = await one.servers()
    assert found.sandboxes[0].commands == 19


async def test_deployments_of_one_namespace_know_nothing_of_each_other(cluster: OnCluster) -> None:
    one, other = await cluster.join("a"), cluster.make("b", "http://b.test:8765", "another")
    await other.join("b")
    assert one.key != other.key
    await claims_of(one).claim(TASK, is_sent=True)
    assert (await claims_of(other).claim(TASK, is_sent=True)).door is None
    assert [server.instance for server in await other.servers()] == ["b"]


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["claim", "release", "die"])), max_size=12))
def test_whatever_servers_do_a_task_has_one_living_server_at_most(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        async with on_cluster() as cluster:
            servers = {name: await cluster.join(name) for name in "abc"}
            for name, what in steps:
                claims = claims_of(servers[name])
                if name not in cluster.living:
                    continue
                if what == "claim":
                    await claims.claim(TASK, is_sent=True)
                elif what == "release":
                    await claims.release([TASK])
                else:
                    await cluster.kill(servers[name])
                holders = [one for one in cluster.living if TASK in claims_of(servers[one]).own]
                assert len(holders) <= 1, (steps, holders)

    anyio.run(run)


# --- dead by a word on its Lease -------------------------------------------------------------------------------------


async def test_a_server_whose_clock_stood_still_learns_that_it_was_declared_dead(cluster: OnCluster) -> None:
    """As on a machine that was paused: by its own clock, its Lease never ran out."""
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await cluster.kill(one)
    assert (await claims_of(two).claim(TASK, is_sent=True)).dead == "a"
    one.members._clock = lambda: one.members._renewed
    assert one.is_current
    await one.renew()
    assert (claims_of(one).own, one.is_current) == (set(), True)
    await two.members.look()
    assert two.members.is_alive("a")


async def test_who_renews_its_lease_in_time_is_not_declared_dead(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    del cluster.living["a"]
    await cluster.pass_time(2 * TERM)
    assert not two.members.is_alive("a")
    await one.members.renew()  # after the last look of the other one
    assert not await two.members.declare_dead("a")
    assert (await claims_of(two).claim(TASK, is_sent=True)).door == Peer("http://a.test:8765", "a")


@pytest.mark.parametrize("first", ["the server", "the heir"])
async def test_of_a_server_that_comes_back_and_its_heir_one_has_a_task(cluster: OnCluster, first: str) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await cluster.kill(one)
    assert await two.members.declare_dead("a")  # and then it is slow
    if first == "the server":
        await one.renew()
        assert not await claims_of(two).seize(TASK, "a")
    else:
        assert await claims_of(two).seize(TASK, "a")
        await one.renew()
    owners = [server.instance for server in (one, two) if TASK in claims_of(server).own]
    assert owners == ["a" if first == "the server" else "b"]


async def test_a_server_that_starts_at_anothers_address_says_that_the_other_has_ended(cluster: OnCluster) -> None:
    """As when the container of a pod is started again."""
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    del cluster.living["a"]
    again = cluster.make("c", "http://a.test:8765")
    await again.join("c")
    await two.members.look()
    assert not two.members.is_alive("a")
    assert two.members.peer("c") == Peer("http://a.test:8765", "c")
    assert (await claims_of(two).claim(TASK, is_sent=True)).dead == "a"


async def test_a_server_that_has_handed_everything_over_stays_dead_and_claims_nothing(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    assert one.has_heirs
    assert one.archives.has(TASK)
    await one.hand_over()
    assert not one.archives.has(TASK)  # whoever has it now may be writing there
    await cluster.pass_time(TERM)
    found = await claims_of(one).claim(TaskKey("ann", "new"))
    assert (found.door, found.is_certain) == (Peer("http://b.test:8765", "b"), False)
    assert (await claims_of(two).claim(TASK, is_sent=True)).dead == "a"
    assert not two.has_heirs


async def test_a_server_that_has_handed_everything_over_is_waited_for_while_it_still_answers(
    cluster: OnCluster,
) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    await one.hand_over()
    for _ in range(10):
        await cluster.pass_time(TERM / 4)
        assert [left async for left in two.bequeathed()] == []
        assert (two.lives("a"), list(two.members.dead())) == (True, ["a"])
    await cluster.kill(one)
    assert not two.lives("a")
    assert [left async for left in two.bequeathed()] == []
    await two.members.look()
    assert list(two.members.names()) == ["b"]


async def test_nobody_is_dead_after_an_outage_of_the_api_in_which_nobody_could_renew(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    cluster.clock.now += 5 * TERM  # nothing that was asked was answered
    await two.members.look()
    assert two.members.is_alive("a")
    await one.renew()
    await two.renew()
    await two.members.look()
    assert two.members.is_alive("a")
    assert (await claims_of(two).claim(TASK, is_sent=True)).door == Peer("http://a.test:8765", "a")


async def test_an_engine_of_several_servers_lists_its_own_pods_alone(cluster: OnCluster) -> None:
    engine = KubernetesEngine(cluster.server.api())
    await engine.own_only("a")
    assert await engine.containers("test") == []
    assert cluster.server.selectors == ["taskcell.dev/deployment=test,taskcell.dev/instance=a"]
    await engine.aclose()


async def test_what_a_task_was_opened_with_is_forgotten_when_it_was_idle_for_sixty_days(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    claims = claims_of(one)
    await claims.claim(TASK, is_sent=True)
    one.opened[TASK] = Opening(labels={"a": "b"})
    await claims.note_opened()
    await claims.release([TASK])
    await claims.release([])  # it was used again
    await claims.release([TASK])
    (lease,) = [lease for name, lease in cluster.server.all("leases").items() if "-task-" in name]
    lease["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z"
    await cluster.kill(one)
    heir = await cluster.join("b")
    await cluster.pass_time(2 * TERM)
    assert [left async for left in heir.bequeathed()] == []
    assert heir.opened == {TASK: Opening(labels={"a": "b"})}
    await claims_of(heir).release([TASK])
    await claims_of(heir).note_opened()
    await claims_of(heir).release([TASK])
    assert heir.opened == {}
    assert not [name for name in cluster.server.all("leases") if "-task-" in name]


async def test_a_server_that_came_since_the_last_look_is_not_taken_for_dead(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), cluster.make("b", "http://b.test:8765")
    await two.join("b")
    assert not await one.members.declare_dead("b")
    assert await one.members.declare_dead("never")
