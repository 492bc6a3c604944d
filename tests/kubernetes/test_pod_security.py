"""Namespaces that enforce Pod Security, at the level that sandboxes can live with and at the one that they cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest

import cluster
import pod_security
from gateways import GatewayFactory
from taskcell.cli.app import run
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 120.0
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"
DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
SUDO = "manifests = []\n[policy]\nallow_unenforced = ['pids']\nallow_sudo = true\n[terminal]\nsudo = true\n"


async def terminal(gw: Gateway, command: str) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": "a"}))


@pytest.mark.parametrize(("toml", "command", "said"), [(TOML, "id -u", "1000\n"), (SUDO, "sudo id -u", "0\n")])
async def test_baseline_is_enough(gateway: GatewayFactory, tmp_path: Path, toml: str, command: str, said: str) -> None:
    async with (
        cluster.namespace("tc-baseline") as admin,
        pod_security.enforced(admin, "baseline", tmp_path),
        gateway(toml, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-baseline")) as gw,
    ):
        with anyio.fail_after(LIMIT):
            assert (await terminal(gw, command)).stdout == said


async def test_restricted_is_named_with_what_to_do_by_a_call_and_by_doctor(
    gateway: GatewayFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster.namespace("tc-restricted") as admin, pod_security.enforced(admin, "restricted", tmp_path):
        config = cluster.config(tmp_path / "k", "tc-restricted")
        async with gateway(TOML, engine="kubernetes", host=config) as gw:
            with anyio.fail_after(LIMIT), pytest.raises(EngineError) as refused:
                await terminal(gw, "true")
        trial = await anyio.to_thread.run_sync(_doctors_trial, tmp_path, config, capsys)
    for said in (str(refused.value), trial):
        assert 'violates PodSecurity "restricted:latest"' in said
        assert "label the namespace pod-security.kubernetes.io/enforce=baseline" in said
    assert trial.startswith("'terminal' cannot run.")


async def test_the_servers_own_pod_is_made_where_restricted_is_enforced(tmp_path: Path) -> None:
    """So that it can say what is wrong; its volume does not matter here."""
    kubectl = [os.environ["TASKCELL_TEST_KUBECTL"], "--kubeconfig", os.environ["TASKCELL_TEST_KUBECONFIG"]]
    apply = [*kubectl, "--namespace", "tc-restricted", "apply"]
    for name in ("rights", "server"):
        apply += ["--filename", str(DEPLOY / f"{name}.yaml")]
    async with cluster.namespace("tc-restricted") as admin, pod_security.enforced(admin, "restricted", tmp_path):
        with anyio.fail_after(LIMIT):
            await anyio.run_process(apply)
            while not (await admin.call("GET", admin.path("pods")))["items"]:
                await anyio.sleep(0.1)


def _doctors_trial(folder: Path, config: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `taskcell doctor` says of a sandbox that it tried to start."""
    capsys.readouterr()
    file = folder / "restricted.toml"
    file.write_text(f"{TOML}[engine]\nkind = 'kubernetes'\nhost = '{config}'\n")
    environ = {"XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)}
    assert run(["doctor", "--json", "--config", str(file)], environ=environ, cwd=folder) == 1
    (trial,) = (row for row in json.loads(capsys.readouterr().out) if row["check"] == "trial")
    return str(trial["detail"])
