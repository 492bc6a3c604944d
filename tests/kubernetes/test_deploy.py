"""`deploy/kubernetes` on a real cluster, by the commands of docs/kubernetes.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import text_of
from observe import eventually
from taskcell.model import TaskKey

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
#: What the page's commands install; and what they install here, with what a cluster for tests lacks.
BASES = {"deploy/kubernetes": "tests/kubernetes/overlay"}
BASES["deploy/kubernetes-several"] = "tests/kubernetes/overlay-several"
#: The folders of the volumes that the overlays name; the last is for all servers, and no kubelet changes its owner.
STATE = [Path(f"/run/taskcell-test-{name}") for name in ("state", "state-1", "state-2")]
STORE = Path("/run/taskcell-test-store")
#: The user `taskcell` of the server's image.
SERVER_USER = 999
#: Seconds for one command, and for one answer, on a busy machine.
PATIENCE, ANSWER = 400, 120.0
WRAPPER = """#!/bin/sh
for word do
  shift
  case $word in {cases} esac
  set -- "$@" "$word"
done
exec {kubectl} --kubeconfig {config} "$@"
"""


class Cluster:
    """The cluster as a person at a shell has it, who types what the page says."""

    def __init__(self, folder: Path) -> None:
        program = folder / "kubectl"
        program.write_text(
            WRAPPER.format(
                cases=" ".join(f"{base}) word={here} ;;" for base, here in BASES.items()),
                kubectl=os.environ["TASKCELL_TEST_KUBECTL"],
                config=os.environ["TASKCELL_TEST_KUBECONFIG"],
            )
        )
        program.chmod(0o755)
        self._environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}

    def run(self, lines: str, *, check: bool = True) -> str:
        """Run lines as they are typed; return what they print. The test fails with it where they do."""
        done = subprocess.run(
            ["bash", "-euc", lines],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}{self.seen()}"
        return done.stdout

    def seen(self) -> str:
        """What is to be known about the server when something went wrong."""
        return self.run(
            "kubectl -n taskcell describe pods; for pod in taskcell-0 taskcell-1; do "
            "kubectl -n taskcell logs $pod --tail 40 2>&1; done; true",
            check=False,
        )

    @contextmanager
    def forwarded(self, to: str = "service/taskcell") -> Iterator[int]:
        """A port of this machine that leads to the Service, as the page has it, or to one pod."""
        argv = ["kubectl", "--namespace", "taskcell", "port-forward", to, ":8765"]
        running = subprocess.Popen(argv, cwd=ROOT, env=self._environ, stdout=subprocess.PIPE, text=True)
        try:
            assert running.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+) ->", running.stdout.readline())
            assert found, self.seen()
            yield int(found[1])
        finally:
            running.terminate()
            running.wait(PATIENCE)

    @asynccontextmanager
    async def client(self, token: str, to: str = "service/taskcell", **options: Any) -> AsyncIterator[Client]:
        with self.forwarded(to) as port:
            headers = {"authorization": f"Bearer {token}", "host": "localhost:8765"}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=ANSWER) as http,
                Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http), **options) as client,
            ):
                yield client


def blocks() -> list[str]:
    """The commands of the page: to install, to look, to make a token, and to remove everything."""
    return re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    for path in (*STATE, STORE):
        path.mkdir(exist_ok=True)
    os.chown(STORE, SERVER_USER, SERVER_USER)
    with tempfile.TemporaryDirectory() as folder:
        found = Cluster(Path(folder))
        yield found
        for what in ("namespace taskcell", "pv taskcell-state taskcell-state-1 taskcell-state-2 taskcell-store"):
            found.run(f"kubectl delete {what} --ignore-not-found")
    for path in (*STATE, STORE):
        shutil.rmtree(path, ignore_errors=True)


def may(cluster: Cluster, words: str, namespace: str = "taskcell") -> bool:
    """Whether the server's account is allowed to."""
    account = "--as system:serviceaccount:taskcell:taskcell"
    return cluster.run(f"kubectl auth can-i {words} {account} --namespace {namespace} || true").strip() == "yes"


def hold_to_the_rights(cluster: Cluster) -> None:
    assert may(cluster, "create pods")
    assert may(cluster, "create pods/exec")
    for denied in ("get secrets", "list configmaps", "delete configmaps", "create roles", "get nodes", "update pods",
                   "patch networkpolicies", "delete networkpolicies"):  # fmt: skip
        assert not may(cluster, denied), denied
    assert not may(cluster, "list pods", "default")
    assert not may(cluster, "create pods/exec", "kube-system")


async def ran(client: Client, command: str, task: str = "one") -> str:
    return text_of(await client.call_tool("terminal", {"command": command, "task_id": task}))


async def test_the_pages_commands_lead_from_an_empty_namespace_to_a_client_and_leave_nothing(cluster: Cluster) -> None:
    install, look, make_token, remove, *_ = blocks()
    cluster.run(install)
    hold_to_the_rights(cluster)
    cluster.run(look)
    token = re.search(r"taskcell_\S+", cluster.run(make_token))
    assert token, "no token was printed"
    async with cluster.client(token[0]) as client:
        assert (await ran(client, "echo kept > file; export A=1; sleep 1000 & echo hi")).startswith("hi\n")
        pods = cluster.run("kubectl -n taskcell get pods --selector taskcell.dev/network=none --output name").split()
        assert pods
    cluster.run("kubectl -n taskcell delete pod taskcell-0")
    cluster.run("kubectl -n taskcell rollout status statefulset/taskcell --timeout 5m")
    async with cluster.client(token[0]) as client:
        found = await ran(client, "cat file; echo $A; pgrep -c sleep")
        assert found.startswith("kept\n1\n1\n"), found + cluster.seen()
    cluster.run(remove)
    assert eventually(lambda: not cluster.run("kubectl get pods --all-namespaces --output name").strip())


async def test_several_servers_are_one_deployment_by_the_pages_commands(cluster: Cluster) -> None:
    _, _, make_token, remove, several, _ = blocks()
    seen = cluster.run(several)
    assert re.search(r"ok +servers +The deployment has 2\.", seen), seen
    assert re.search(r"ok +store ", seen), seen
    hold_to_the_rights_of_several(cluster)
    token = re.search(r"taskcell_\S+", cluster.run(make_token))
    assert token, "no token was printed"
    pods = ["pod/taskcell-0", "pod/taskcell-1"]
    tasks = [f"task-{number}" for number in range(4)]
    async with cluster.client(token[0], pods[0]) as first, cluster.client(token[0], pods[1], mode="legacy") as second:
        for task in tasks:
            assert (await ran(first, f"echo {task} > file; echo made", task)).startswith("made\n")
        for task in tasks:
            assert (await ran(second, "cat file", task)).startswith(f"{task}\n")
        assert holders(cluster) <= servers(cluster)
        await call(first, action="snapshot", task_id=tasks[0], name="kept")
        await call(second, action="restore", task_id="restored", name="kept")
        await call(second, action="fork", task_id=tasks[1], to="forked")
        assert (await ran(first, "cat file", "restored")).startswith(f"{tasks[0]}\n")
        assert (await ran(first, "cat file", "forked")).startswith(f"{tasks[1]}\n")
        for pod, task in (("taskcell-0", tasks[2]), ("taskcell-1", tasks[3])):
            look_and_close_from_a_pod(cluster, pod, task)
            assert "taskcell rm" in await ran(second, "ls file", task)
    await files_outlive_sandboxes_and_servers(cluster, token[0], tasks[:2])
    cluster.run(remove)
    assert eventually(lambda: not cluster.run("kubectl get pods --all-namespaces --output name").strip())


async def test_one_server_becomes_several_and_one_again_by_the_pages_commands(cluster: Cluster) -> None:
    """Tokens, kept files and snapshots go along; what is open goes along on the way back."""
    install, _, make_token, _, _, grow = blocks()
    cluster.run(install)
    token = re.search(r"taskcell_\S+", cluster.run(make_token))
    assert token, "no token was printed"
    async with cluster.client(token[0]) as client:
        for task in ("open", "closed"):
            assert (await ran(client, f"echo {task} > file; export A={task}; echo made", task)).startswith("made\n")
        await call(client, action="snapshot", task_id="closed", name="kept")
        await call(client, action="close", task_id="closed")
    cluster.run(grow)
    assert len(servers(cluster)) == 2
    async with cluster.client(token[0], "pod/taskcell-1") as client:
        await call(client, action="restore", task_id="restored", name="kept")
        for task, file in (("open", "open"), ("restored", "closed")):
            found = await ran(client, "cat file; echo $A", task)
            assert found.startswith(f"{file}\n{file}\n"), found + cluster.seen()
            assert (await ran(client, "sleep 1000 & echo begun", task)).startswith("begun\n")
    cluster.run("kubectl -n taskcell scale statefulset/taskcell --replicas 1")
    assert eventually(lambda: len(leases(cluster, "server")) == 1), cluster.seen()
    async with cluster.client(token[0]) as client:
        for task, file in (("open", "open"), ("restored", "closed")):
            found = await ran(client, "cat file; echo $A; pgrep -c sleep", task)
            assert found.startswith(f"{file}\n{file}\n1\n"), found + cluster.seen()


async def call(client: Client, **arguments: str) -> str:
    result = await client.call_tool("sandbox", arguments)
    assert not result.is_error, text_of(result)
    return text_of(result)


def holders(cluster: Cluster) -> set[str]:
    """The servers that have tasks, as the Leases say."""
    return leases(cluster, "task")


def servers(cluster: Cluster) -> set[str]:
    """The servers that live, as the Leases say."""
    found = leases(cluster, "server")
    assert len(found) == 2, found
    return found


def leases(cluster: Cluster, role: str) -> set[str]:
    listed = cluster.run(f"kubectl -n taskcell get leases --selector taskcell.dev/role={role} --output json")
    return {one["spec"]["holderIdentity"] for one in json.loads(listed)["items"]}


def hold_to_the_rights_of_several(cluster: Cluster) -> None:
    (key,) = cluster.run("kubectl -n taskcell get secrets -o name | grep -- -key").split()
    assert may(cluster, f"get {key}")
    assert may(cluster, "patch leases.coordination.k8s.io")
    for denied in ("get secrets", "list secrets", "delete secrets", "update leases.coordination.k8s.io"):
        assert not may(cluster, denied), denied


def look_and_close_from_a_pod(cluster: Cluster, pod: str, task: str) -> None:
    """What the operator does, with the commands in a server's pod."""
    taskcell = f"kubectl -n taskcell exec {pod} -- /opt/taskcell/bin/taskcell"
    found = {one["task"]: one for one in json.loads(cluster.run(f"{taskcell} ps --json"))}
    assert found[task]["state"] in ("ready", "busy"), found
    assert "1 sandbox closed" in cluster.run(f"{taskcell} rm --principal ada {task}")


async def files_outlive_sandboxes_and_servers(cluster: Cluster, token: str, tasks: list[str]) -> None:
    """Files that one server has kept are there at the next one, when sandboxes and servers are others."""
    digests = {task: TaskKey("ada", task).digest for task in tasks}
    kept = STORE / "cluster/kept"
    assert eventually(lambda: all(list(kept.glob(f"{digest}.*")) for digest in digests.values())), list(kept.iterdir())
    cluster.run("kubectl -n taskcell rollout restart statefulset/taskcell")
    cluster.run("kubectl -n taskcell rollout status statefulset/taskcell --timeout 5m")
    cluster.run("kubectl -n taskcell delete pods --selector taskcell.dev/network=none")
    async with cluster.client(token) as client:
        for task in tasks:
            found = await ran(client, "cat file", task)
            assert found.startswith(f"{task}\n"), found + cluster.seen()
