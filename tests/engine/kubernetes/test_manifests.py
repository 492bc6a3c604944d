"""What the manifests of a server hold for the programs that run in its pod."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from taskcell.engine.kubernetes import inside

SERVER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "server.yaml"


def test_copied_files_go_through_a_disk_and_keys_through_memory() -> None:
    found = next(one for one in YAML(typ="safe").load_all(SERVER.read_text()) if one["kind"] == "StatefulSet")
    pod = found["spec"]["template"]["spec"]
    volumes = {one["name"]: one.get("emptyDir") for one in pod["volumes"]}
    (server,) = pod["containers"]
    at = {one["mountPath"]: volumes.get(one["name"]) for one in server["volumeMounts"]}
    assert at["/tmp"]["medium"] == "Memory"
    assert "medium" not in at[inside.COPIED_THROUGH]
