"""Servers of one deployment as pods of the real cluster, each at its node's address, and what can be done to them."""

from __future__ import annotations

import base64
import os
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
from httpcore2 import AnyIOBackend, AsyncNetworkStream
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

import cluster
from asking import fields
from cluster import CLUSTER_TIMEOUT
from taskcell.auth.tokens import TokenFile
from taskcell.caller import USUAL_SCOPES
from taskcell.client.task import Task
from taskcell.client.wire import ServerClient
from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.rights import RIGHTS, SHARING
from taskcell.model import TaskKey

RBAC = "rbac.authorization.k8s.io/v1"
#: Seconds for one answer, with a pod that is started for it.
ANSWER = 120.0
#: The user of the server's image, and the folder of its state.
SERVER_USER = 999
TOML = """\
deployment = "servers"
manifests = []
[engine]
kind = "kubernetes"
[http]
tokens_file = "/state/own/tokens.json"
allowed_hosts = ["service"]
[pool]
warm = 0
orphan_ttl = "5m"
[terminal]
memory = "128m"
[workspace]
size = "16m"
[policy]
allow_unenforced = ["pids"]
"""
#: Seconds for servers to start, several at once on a busy machine.
START = 180.0
SERVICE = "http://service"
#: A cluster for tests has no network between pods: a server has its node's, and each one there a port of its own.
FIRST_PORT = 8801
_SECRET, _CONFIG, _ACCOUNT = "tokens", "config", "taskcell"


class Service(AnyIOBackend):
    """Where connections go: to an address that is chosen as each is opened, as kube-proxy does."""

    def __init__(self, addresses: Callable[[], Awaitable[list[str]]]) -> None:
        self._addresses = addresses

    async def connect_tcp(self, host: str, port: int, *words: Any, **named: Any) -> AsyncNetworkStream:
        with anyio.fail_after(ANSWER):
            while not (known := await self._addresses()):
                await anyio.sleep(0.1)
        address = urlsplit(random.choice(known))
        return await super().connect_tcp(str(address.hostname), int(address.port or 0), *words, **named)


def through(service: Service, http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Have a client's connections go through the Service."""
    http._transport._pool._network_backend = service  # type: ignore[attr-defined]
    return http


@dataclass
class ServerPod:
    """One server that answers."""

    name: str
    url: str
    token: str
    pod: dict[str, Any]
    service: Service | None = None

    @property
    def node(self) -> int:
        """The number of its node."""
        return int(self.pod["spec"]["nodeName"].removeprefix("n"))

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client of its routes for programs."""
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=ANSWER, trust_env=False) as http:
            yield http if self.service is None else through(self.service, http)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with (
            self.http() as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode="2026-07-28") as client,
        ):
            yield client

    async def call(self, tool: str, task: str = "t", **arguments: Any) -> dict[str, Any]:
        """Call a tool by a connection of its own to this server; the fields of its answer."""
        with anyio.fail_after(ANSWER):
            async with self.client() as client:
                answer = await fields(client, tool, {"task_id": task, **arguments})
        assert "error" not in answer, f"{self.name}: {answer}"
        return answer

    async def run(self, command: str, task: str = "t", **more: Any) -> dict[str, Any]:
        return await self.call("terminal", task, command=command, **more)

    async def is_ready(self) -> bool:
        try:
            async with self.http() as http:
                return (await http.get("/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the server's process."""
        os.kill(self.pid(), number)

    def pid(self) -> int:
        """The server's process."""
        (status,) = self.pod["status"]["containerStatuses"]
        at = cluster.folder() / self.pod["spec"]["nodeName"] / "run/containerd.sock"
        command = ["ctr", "-a", at, "-n", "k8s.io", "tasks"]
        listed = subprocess.run([*command, "ls"], check=True, capture_output=True, text=True, timeout=CLUSTER_TIMEOUT)
        digest = status["containerID"].partition("//")[2]
        (pid,) = [int(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith(digest)]
        return pid


class ServerPods:
    """The servers of one namespace."""

    def __init__(self, admin: Api, token: str) -> None:
        self.admin, self.token = admin, token
        self.servers: dict[str, ServerPod] = {}

    async def three(self) -> tuple[ServerPod, ServerPod, ServerPod]:
        """Three servers on two nodes."""
        async with anyio.create_task_group() as starts:
            for number, name in enumerate(("one", "two", "three")):
                starts.start_soon(self.start, name, 1 + number % 2, FIRST_PORT + number)
        one, two, three = (self.servers[name] for name in ("one", "two", "three"))
        return one, two, three

    async def start(
        self, name: str, node: int, port: int = FIRST_PORT, change: Callable[[dict[str, Any]], None] = lambda pod: None
    ) -> ServerPod:
        """One more server, which serves by the time that this returns.

        Arguments:
            change: makes another pod of what a server usually has.
        """
        body = pod_body(name, node, port)
        change(body)
        await self.admin.call("POST", self.admin.path("pods"), body)
        url = ""
        with anyio.fail_after(START):
            while True:
                pod = await self.admin.call("GET", self.admin.path("pods", name))
                url = f"http://{pod['status'].get('hostIP')}:{port}"
                found = ServerPod(name, url, self.token, pod)
                if pod["status"]["phase"] == "Running" and await found.is_ready():
                    break
                await anyio.sleep(0.2)
        self.servers[name] = found
        return found

    # --- a Deployment behind a Service -------------------------------------------------------------------------------

    async def deploy(self, replicas: int) -> None:
        """A Deployment of servers, one on each node, and a Service before it."""
        group, labels = "apps/v1", {"app": "taskcell"}
        template = {"metadata": {"labels": labels}, "spec": pod_spec(FIRST_PORT)}
        strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}  # two on one node want the same port
        body = {"metadata": {"name": "taskcell"}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                "strategy": strategy, "template": template}}  # fmt: skip
        await self.admin.call("POST", self.admin.path("deployments", group=group), body)
        service = {"metadata": {"name": "taskcell"}, "spec": {"selector": labels, "ports": [{"port": FIRST_PORT}]}}
        await self.admin.call("POST", self.admin.path("services"), service)
        await self._rolled_out()

    async def restarted(self) -> None:
        """Replace every server, as `kubectl rollout restart` does."""
        path = self.admin.path("deployments", "taskcell", "apps/v1")
        at = "/spec/template/metadata/annotations"
        await self.admin.call("PATCH", path, [{"op": "add", "path": at, "value": {"restarted": "1"}}], JSON_PATCH)
        await self._rolled_out()

    async def _rolled_out(self) -> None:
        path = self.admin.path("deployments", "taskcell", "apps/v1")
        with anyio.fail_after(2 * START):
            while True:
                found = await self.admin.call("GET", path)
                status, wanted = found.get("status", {}), found["spec"]["replicas"]
                new, ready, every = (status.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "replicas"))
                is_seen = status.get("observedGeneration") == found["metadata"]["generation"]
                if is_seen and new == ready == every == wanted and len(await self.addresses()) == wanted:
                    return
                await anyio.sleep(0.5)

    async def addresses(self) -> list[str]:
        """Where the Service sends requests now."""
        found = await self.admin.call("GET", self.admin.path("endpoints", "taskcell"))
        return [
            f"http://{address['ip']}:{FIRST_PORT}"
            for subset in found.get("subsets", ())
            for address in subset.get("addresses", ())
        ]

    async def ask(self, tool: str, *, task: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool through the Service, by a new connection."""
        return await ServerPod("service", SERVICE, self.token, {}, Service(self.addresses)).call(
            tool, task, **arguments
        )

    @asynccontextmanager
    async def program(self, task: str) -> AsyncIterator[Task]:
        """A task as programs have it, through the Service."""
        service = Service(self.addresses)

        class Behind(ServerClient):
            def _connection(self, door: str | None) -> httpx2.AsyncClient:
                return through(service, super()._connection(door))

        async with Behind(url=SERVICE, token=self.token, linger=ANSWER) as wire:
            yield Task(wire, task)

    async def output(self, answer: dict[str, Any], task: str) -> str:
        """What a command has printed at its end; it is waited for where the answer came before."""
        while answer["status"] == "running":
            found = {"action": "wait", "process_id": answer["process_id"], "cursor": 0}
            answer = await self.ask("process", task=task, **found)
        assert answer["status"] == "exited", answer
        return str(answer["stdout"])

    async def delete(self, name: str) -> None:
        """Delete a server's pod without any grace; nothing happens where it is gone."""
        with suppress(ApiRefused):
            await self.admin.call("DELETE", self.admin.path("pods", name), {"gracePeriodSeconds": 0})

    async def leases(self, role: str) -> list[dict[str, Any]]:
        """Those of servers, or of tasks."""
        path = self.admin.path("leases", group="coordination.k8s.io/v1")
        found = await self.admin.call("GET", path, labelSelector=f"taskcell.dev/role={role}")
        return list(found["items"])

    async def write_times(self, written: str) -> None:
        """Have every server's Lease say another time, as when its clock jumps."""
        for one in await self.leases("server"):
            path = self.admin.path("leases", one["metadata"]["name"], "coordination.k8s.io/v1")
            steps = [{"op": "add", "path": "/spec/renewTime", "value": written}]
            await self.admin.call("PATCH", path, steps, JSON_PATCH)

    async def holder(self, task: str = "t") -> ServerPod:
        """The server that has a task, as its Lease says."""
        digest = TaskKey("ann", task).digest
        (name,) = [one["spec"]["holderIdentity"] for one in await self.leases("task")
                   if one["metadata"]["name"].endswith(digest)]  # fmt: skip
        (address,) = [one["metadata"]["annotations"]["taskcell.dev/address"] for one in await self.leases("server")
                      if one["spec"]["holderIdentity"] == name]  # fmt: skip
        (server,) = [one for one in self.servers.values() if one.url == address]
        return server

    async def task_at(self, node: int) -> tuple[str, ServerPod]:
        """A task whose server is on a node, and that server."""
        for number in range(40):
            task = f"t{number}"
            await self.servers["one"].run("true", task)
            if (server := await self.holder(task)).node == node:
                return task, server
        raise AssertionError("no task is at a server of that node")

    @asynccontextmanager
    async def sandboxes_on(self, node: int) -> AsyncIterator[None]:
        """Sandboxes go to this node alone, so that another one can be cut off without them."""
        await self._close_others(node, is_closed=True)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLUSTER_TIMEOUT):
                await self._close_others(node, is_closed=False)

    async def _close_others(self, node: int, *, is_closed: bool) -> None:
        for other in (await self.admin.call("GET", "/api/v1/nodes"))["items"]:
            name = other["metadata"]["name"]
            steps = [{"op": "add", "path": "/spec/unschedulable", "value": is_closed and name != f"n{node}"}]
            await self.admin.call("PATCH", f"/api/v1/nodes/{name}", steps, JSON_PATCH)

    def other(self, *than: ServerPod) -> ServerPod:
        return next(one for one in self.servers.values() if one not in than)

    async def sandboxes(self, task: str = "") -> list[dict[str, Any]]:
        """The pods of sandboxes, or of a task's, that are not being deleted."""
        found = await self.admin.call("GET", self.admin.path("pods"), labelSelector="taskcell.dev/sandbox=1")
        return [
            one
            for one in found["items"]
            if not one["metadata"].get("deletionTimestamp")
            and (not task or any(f'"task": "{task}"' in text for text in one["metadata"]["annotations"].values()))
        ]

    async def _pods(self) -> list[dict[str, Any]]:
        found = await self.admin.call("GET", self.admin.path("pods"), labelSelector="app=taskcell")
        return list(found["items"])

    async def log(self) -> str:
        """What the servers have logged, for a test that fails."""
        texts = []
        for name in [one["metadata"]["name"] for one in await self._pods()]:
            kubectl = [os.environ["TASKCELL_TEST_KUBECTL"], "--kubeconfig", os.environ["TASKCELL_TEST_KUBECONFIG"]]
            done = subprocess.run(
                [*kubectl, "-n", self.admin.cluster.namespace, "logs", name, "--tail", "60"],
                check=False, capture_output=True, text=True, timeout=CLUSTER_TIMEOUT,
            )  # fmt: skip
            texts.append(f"--- {name}\n{done.stdout}{done.stderr}")
        return "\n".join(texts)


def container(port: int) -> dict[str, Any]:
    """The server's container; `POD_IP` as the manifests have it."""
    return {
        "name": "server",
        "image": "taskcell/server:latest",
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": port}],
        "args": ["serve", "--http", f"0.0.0.0:{port}"],
        "env": [
            {"name": "XDG_STATE_HOME", "value": "/state"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "TASKCELL__HTTP__PEER_URL", "value": f"http://$(POD_IP):{port}"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": port, "httpHeaders": [{"name": "Host", "value": "localhost"}]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/taskcell"},
            {"name": "state", "mountPath": "/state"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def pod_spec(port: int) -> dict[str, Any]:
    """A server's pod. Its tokens are copied, for the server wants a file of its own."""
    copy = "mkdir -m 700 /state/own && cp /secret/tokens.json /state/own/ && chmod 600 /state/own/tokens.json"
    mounts = [{"name": "secret", "mountPath": "/secret"}, {"name": "state", "mountPath": "/state"}]
    init = {"name": "tokens", "image": "taskcell/server:latest", "imagePullPolicy": "Never",
            "command": ["sh", "-c", copy], "volumeMounts": mounts}  # fmt: skip
    return {
        "hostNetwork": True,
        "serviceAccountName": _ACCOUNT,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": SERVER_USER,
            "runAsGroup": SERVER_USER,
            "fsGroup": SERVER_USER,
        },
        "initContainers": [init],
        "containers": [container(port)],
        "volumes": [
            {"name": "config", "configMap": {"name": _CONFIG}},
            {"name": "secret", "secret": {"secretName": _SECRET}},
            {"name": "state", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {"medium": "Memory"}},
        ],
    }


def pod_body(name: str, node: int, port: int) -> dict[str, Any]:
    """A server without a controller, so that what was killed stays dead."""
    spec = pod_spec(port) | {"nodeName": f"n{node}", "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "taskcell"}}, "spec": spec}


def _role() -> dict[str, Any]:
    rules = [
        {"apiGroups": [group], "resources": [name + (part and f"/{part}")], "verbs": list(verbs)}
        for group, name, part, verbs in (*RIGHTS, *SHARING)
    ]
    return {"metadata": {"name": _ACCOUNT}, "rules": rules}


@asynccontextmanager
async def server_pods(folder: Path, namespace: str, pool: str = "") -> AsyncIterator[ServerPods]:
    """A namespace for servers: an account with the documented rights alone, the configuration, a token.

    Arguments:
        pool: more lines of the configuration's table `[pool]`.
    """
    toml = TOML.replace("[pool]\n", f"[pool]\n{pool}")
    token = TokenFile(folder / "tokens.json").create("ann", USUAL_SCOPES, None)[1]
    secret = base64.b64encode((folder / "tokens.json").read_bytes()).decode()
    binding = {
        "metadata": {"name": _ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": _ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": namespace}],
    }
    objects = [
        (RBAC, "roles", _role()),
        (RBAC, "rolebindings", binding),
        ("", "serviceaccounts", {"metadata": {"name": _ACCOUNT}}),
        ("", "configmaps", {"metadata": {"name": _CONFIG}, "data": {"taskcell.toml": toml}}),
        ("", "secrets", {"metadata": {"name": _SECRET}, "data": {"tokens.json": secret}}),
    ]
    async with cluster.namespace(namespace, *objects) as admin:
        made = ServerPods(admin, token)
        try:
            yield made
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLUSTER_TIMEOUT):
                print(await made.log())  # pytest shows it where a test fails
                for one in await made._pods():
                    await made.delete(one["metadata"]["name"])
