"""`deploy/kubernetes` on a real cluster, by the commands of docs/kubernetes.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import text_of
from observe import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
#: What the page's commands install; and what they install here, with what a cluster for tests lacks.
BASE, HERE = "deploy/kubernetes", "tests/kubernetes/overlay"
#: The folder of the volume that the overlay names.
STATE = Path("/run/taskcell-test-state")
#: Seconds for one command, and for one answer, on a busy machine.
PATIENCE, ANSWER = 400, 120.0
WRAPPER = """#!/bin/sh
for word do
  shift
  [ "$word" != {base} ] || word={here}
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
                base=BASE,
                here=HERE,
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
            "kubectl -n taskcell describe pods; kubectl -n taskcell logs taskcell-0 --tail 40 2>&1; true", check=False
        )

    @contextmanager
    def forwarded(self) -> Iterator[int]:
        """A port of this machine that leads to the Service, as the page has it."""
        argv = ["kubectl", "--namespace", "taskcell", "port-forward", "service/taskcell", ":8765"]
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
    async def client(self, token: str) -> AsyncIterator[Client]:
        with self.forwarded() as port:
            headers = {"authorization": f"Bearer {token}", "host": "localhost:8765"}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=ANSWER) as http,
                Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)) as client,
            ):
                yield client


def blocks() -> list[str]:
    """The commands of the page: to install, to look, to make a token, and to remove everything."""
    return re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = Cluster(Path(folder))
        yield found
        for what in ("namespace taskcell", "pv taskcell-state"):
            found.run(f"kubectl delete {what} --ignore-not-found")
    shutil.rmtree(STATE)


def may(cluster: Cluster, words: str, namespace: str = "taskcell") -> bool:
    """Whether the server's account is allowed to."""
    account = "--as system:serviceaccount:taskcell:taskcell"
    return cluster.run(f"kubectl auth can-i {words} {account} --namespace {namespace} || true").strip() == "yes"


def hold_to_the_rights(cluster: Cluster) -> None:
    assert may(cluster, "create pods")
    assert may(cluster, "create pods/exec")
    for denied in ("get secrets", "list configmaps", "delete configmaps", "create roles", "get nodes", "update pods"):
        assert not may(cluster, denied), denied
    assert not may(cluster, "list pods", "default")
    assert not may(cluster, "create pods/exec", "kube-system")


async def ran(client: Client, command: str) -> str:
    return text_of(await client.call_tool("terminal", {"command": command, "task_id": "one"}))


async def test_the_pages_commands_lead_from_an_empty_namespace_to_a_client_and_leave_nothing(cluster: Cluster) -> None:
    install, look, make_token, remove = blocks()
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
