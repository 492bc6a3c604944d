"""The real cluster that tests marked `kubernetes` run on, and what can be done to it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.kubeconfig import find_cluster

#: The priority of a program that is started again, whatever that of the tests is: a server bears an absence of half a
#: minute, and an API server that starts needs three seconds of processor, which a busy machine gives it in forty.
AT_ONCE = -20
#: Seconds in which a cluster on a busy machine does what it does at once on a calm one.
CLUSTER_TIMEOUT = 60.0


def folder() -> Path:
    return Path(os.environ["TASKCELL_TEST_CLUSTER"])


def api(kubeconfig: str = "", namespace: str = "") -> Api:
    return Api(lambda: find_cluster({}, kubeconfig or os.environ["TASKCELL_TEST_KUBECONFIG"], namespace))


def config(at: Path, namespace: str) -> str:
    """The tests' kubeconfig, with another namespace."""
    found = json.loads(Path(os.environ["TASKCELL_TEST_KUBECONFIG"]).read_text())
    found["contexts"][0]["context"]["namespace"] = namespace
    at.write_text(json.dumps(found))
    return str(at)


class Program:
    """A program of the cluster, by the pid that was written at its start."""

    def __init__(self, name: str) -> None:
        self._file = folder() / "pids" / name
        self._pid = int(self._file.read_text())
        self._argv = Path(f"/proc/{self._pid}/cmdline").read_bytes().split(b"\0")[:-1]

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def start(self) -> None:
        self._pid = _again(self._file, self._argv)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does nothing while this is entered, as if its machine were far too busy."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)


def restart_kubelet(number: int) -> None:
    """Kill a node's kubelet, in its own namespaces, and start it again there; its pods go on meanwhile."""
    file = folder() / "pids" / f"kubelet-n{number}"
    pid = int(file.read_text())
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    holder = (folder() / "pids" / f"containerd-n{number}").read_text().strip()
    os.kill(pid, signal.SIGKILL)
    enter = ["nsenter", "-t", holder, "-m", "-n", "--"]
    _again(file, [*enter, *argv])


def _again(file: Path, argv: Sequence[str | bytes]) -> int:
    """Start a program, write its pid to a file, and return it."""
    with (folder() / "log" / f"{file.name}-again.log").open("ab") as log:
        again = subprocess.Popen(
            argv,
            stdout=log,
            stderr=log,
            cwd=folder(),
            start_new_session=True,
            preexec_fn=_go_first,  # noqa: PLW1509 - tests start it from one thread
        )
    file.write_text(str(again.pid))
    return again.pid


def _go_first() -> None:
    """Give the present process AT_ONCE; the kernel may count sessions and not processes (autogroup)."""
    os.setpriority(os.PRIO_PROCESS, 0, AT_ONCE)
    group = Path("/proc/self/autogroup")
    if group.exists():
        group.write_text(str(AT_ONCE))


def number_of(pod: dict[str, Any]) -> int:
    """The node of a pod."""
    return int(pod["spec"]["nodeName"].removeprefix("n"))


def processes(pod: dict[str, Any]) -> list[str]:
    """What the kernel has in a pod's containers, whatever its cluster knows; not what holds the pod's namespaces."""
    digests = [one["containerID"].partition("//")[2] for one in pod["status"]["containerStatuses"]]
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and any(one in (process / "cgroup").read_text() for one in digests):
                found.append((process / "stat").read_text())
    return found


def kill_containers(pod: dict[str, Any]) -> None:
    """Kill what is PID 1 in each of a pod's containers, as the kernel does when memory is short."""
    node = folder() / pod["spec"]["nodeName"]
    command = ["ctr", "-a", node / "run/containerd.sock", "-n", "k8s.io", "tasks", "kill", "-s", "KILL"]
    for one in pod["status"]["containerStatuses"]:
        digest = one["containerID"].partition("//")[2]
        subprocess.run([*command, digest], check=True, timeout=CLUSTER_TIMEOUT)


@contextmanager
def cut_off(number: int) -> Iterator[None]:
    """A node without its network."""
    pid = (folder() / "pids" / f"kubelet-n{number}").read_text().strip()
    inner = subprocess.run(["nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "eth0"],
                           check=True, capture_output=True, text=True).stdout  # fmt: skip
    index = inner.partition("@if")[2].partition(":")[0]
    link = next(one.parent.name for one in Path("/sys/class/net").glob("*/ifindex") if one.read_text().strip() == index)
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)


@contextmanager
def full_etcd() -> Iterator[None]:
    """An etcd that takes no writes, as when its quota is used up: by the alarm that it raises then."""
    _alarm("ACTIVATE")
    try:
        yield
    finally:
        _alarm("DEACTIVATE")


def _alarm(action: str) -> None:
    members = json.load(_ask("/v3/cluster/member/list", {}))
    member = members["header"]["member_id"]
    _ask("/v3/maintenance/alarm", {"action": action, "memberID": member, "alarm": "NOSPACE"}).close()


def _ask(path: str, body: dict[str, Any]) -> Any:
    argv = Path(f"/proc/{(folder() / 'pids' / 'etcd').read_text().strip()}/cmdline").read_text().split("\0")
    at = argv[argv.index("--listen-client-urls") + 1]
    request = urllib.request.Request(at + path, json.dumps(body).encode())
    return urllib.request.urlopen(request, timeout=CLUSTER_TIMEOUT)


async def pods(admin: Api) -> list[dict[str, Any]]:
    """The pods of sandboxes in the namespace that are not about to end."""
    found = await admin.call("GET", admin.path("pods"), labelSelector="taskcell.dev/sandbox=1")
    return [one for one in found["items"] if not one["metadata"].get("deletionTimestamp")]


@asynccontextmanager
async def namespace(name: str, *objects: tuple[str, str, dict[str, Any]]) -> AsyncIterator[Api]:
    """A namespace with some objects (group, kind's path, body); it goes afterwards."""
    admin = api(namespace=name)
    await _until_gone(admin, f"/api/v1/namespaces/{name}")  # the last test's may take longer than its end waits
    await admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        for group, kind, body in objects:
            await admin.call("POST", admin.path(kind, group=group), body)
        with anyio.fail_after(CLUSTER_TIMEOUT):  # no pod is made before the namespace has its account
            while not await _is_there(admin, admin.path("serviceaccounts", "default")):
                await anyio.sleep(0.1)
        yield admin
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLUSTER_TIMEOUT):
            await admin.call("DELETE", f"/api/v1/namespaces/{name}")
            await _until_gone(admin, f"/api/v1/namespaces/{name}")
        await admin.aclose()


async def _until_gone(admin: Api, path: str) -> None:
    with anyio.fail_after(2 * CLUSTER_TIMEOUT):
        while await _is_there(admin, path):
            await anyio.sleep(0.2)


async def _is_there(admin: Api, path: str) -> bool:
    try:
        await admin.call("GET", path)
    except ApiRefused as refused:
        return refused.status != 404
    return True


async def account(admin: Api, name: str, at: Path) -> str:
    """A kubeconfig for a ServiceAccount of the namespace; it has no rights but those that a Role gives it."""
    await admin.call("POST", admin.path("serviceaccounts"), {"metadata": {"name": name}})
    with anyio.fail_after(CLUSTER_TIMEOUT):
        while not (made := await admin.call("GET", admin.path("serviceaccounts", name))).get("secrets"):
            await anyio.sleep(0.1)
    secret = await admin.call("GET", admin.path("secrets", made["secrets"][0]["name"]))
    user = {"name": "u", "user": {"token": base64.b64decode(secret["data"]["token"]).decode()}}
    cluster = {"server": admin.cluster.server, "certificate-authority-data": secret["data"]["ca.crt"]}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": admin.cluster.namespace}}
    at.write_text(json.dumps({"current-context": "c", "users": [user], "contexts": [context],
                              "clusters": [{"name": "c", "cluster": cluster}]}))  # fmt: skip
    return str(at)


@contextmanager
def routed(number: int) -> Iterator[None]:
    """A node whose new pods reach the cluster's API, as in most clusters: those of other nodes reach nothing."""
    file = folder() / f"n{number}" / "cni" / "10-ptp.conflist"
    before, pods = file.read_text(), f"10.244.{number}.0/24"
    made = json.loads(before)
    made["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    api_rule = _in_node(number, "iptables", "-t", "nat", "-S", "OUTPUT")
    to = next(line.split()[-1] for line in api_rule.splitlines() if "--to-destination" in line)
    service = next(line.split()[line.split().index("-d") + 1] for line in api_rule.splitlines() if to in line)
    rules = [
        ["-t", "nat", "{}", "PREROUTING", "-s", pods, "-d", service, "-p", "tcp", "--dport", "443",
         "-j", "DNAT", "--to-destination", to],
        ["-t", "nat", "{}", "POSTROUTING", "-s", pods, "-j", "MASQUERADE"],
    ]  # fmt: skip
    _in_node(number, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    with _rules(number, rules):
        file.write_text(json.dumps(made))  # the runtime sees that it changes
        try:
            yield
        finally:
            file.write_text(before)


@contextmanager
def walled(number: int) -> Iterator[None]:
    """A node whose network lets nothing of its pods out, as one that enforces NetworkPolicies."""
    with _rules(number, [["{}", "FORWARD", "-s", f"10.244.{number}.0/24", "-j", "DROP"]]):
        yield


@contextmanager
def _rules(number: int, rules: list[list[str]]) -> Iterator[None]:
    for rule in rules:
        _in_node(number, "iptables", "-w", *(word.format("-I") for word in rule))
    try:
        yield
    finally:
        for rule in rules:
            _in_node(number, "iptables", "-w", *(word.format("-D") for word in rule))


def _in_node(number: int, *command: str) -> str:
    """Run a program in a node's network; returns what it prints."""
    pid = (folder() / "pids" / f"kubelet-n{number}").read_text().strip()
    done = subprocess.run(["nsenter", "-t", pid, "-n", *command], check=True, capture_output=True, text=True)
    return done.stdout


@asynccontextmanager
async def only_node(number: int) -> AsyncIterator[None]:
    """New pods are made on one node alone."""
    admin = api()
    others = [node["metadata"]["name"] for node in (await admin.call("GET", "/api/v1/nodes"))["items"]]
    others.remove(f"n{number}")

    async def cordon(value: bool) -> None:
        for name in others:
            change = [{"op": "add", "path": "/spec/unschedulable", "value": value}]
            await admin.call("PATCH", f"/api/v1/nodes/{name}", change, JSON_PATCH)

    try:
        await cordon(True)
        yield
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLUSTER_TIMEOUT):
            await cordon(False)
        await admin.aclose()
