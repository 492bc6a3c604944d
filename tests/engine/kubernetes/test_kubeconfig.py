"""Where the Kubernetes engine finds its cluster, and by what it identifies itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from taskcell.engine.kubernetes import kubeconfig
from taskcell.errors import EngineError, EngineUnavailable

CONFIG = """
apiVersion: v1
kind: Config
current-context: second
contexts:
- {name: first, context: {cluster: a, user: token}}
- {name: second, context: {cluster: b, user: %s, namespace: sandboxes}}
clusters:
- {name: a, cluster: {server: "https://a.test:6443"}}
- {name: b, cluster: {server: "https://b.test", %s}}
users:
- {name: token, user: {token: abc}}
- {name: file, user: {tokenFile: token.txt}}
- name: plugin
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: %s, args: [one], env: [{name: EXTRA, value: two}]}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate of an authority."""
    program = shutil.which("openssl")
    assert program is not None
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-subj", "/CN=test", "-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca.crt"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "ca.crt"


def write(folder: Path, user: str = "token", cluster: str = "certificate-authority: ca.crt", plugin: str = "x") -> Path:
    path = folder / "config"
    path.write_text(CONFIG % (user, cluster, plugin))
    return path


def test_the_current_context_is_what_counts_and_files_are_beside_the_kubeconfig(
    tmp_path: Path, authority: Path
) -> None:
    found = kubeconfig.find_cluster({"KUBECONFIG": str(write(tmp_path))})
    assert (found.server, found.namespace, found.token()) == ("https://b.test", "sandboxes", "abc")
    assert found.tls.check_hostname
    assert kubeconfig.find_cluster({}, str(write(tmp_path)), "mine").namespace == "mine"


def test_a_token_in_a_file_is_read_again_each_time(tmp_path: Path, authority: Path) -> None:
    (tmp_path / "token.txt").write_text("one\n")
    found = kubeconfig.find_cluster({}, str(write(tmp_path, "file")))
    assert found.token() == "one"
    (tmp_path / "token.txt").write_text("two\n")
    assert found.token() == "two"


def plugin(folder: Path, until: str) -> Path:
    program = folder / "plugin"
    answer = {"kind": "ExecCredential", "status": {"token": "TOKEN", "expirationTimestamp": until}}
    said = json.dumps(answer).replace("TOKEN", "'$1$EXTRA-$(wc -l < runs)'")
    program.write_text(f"#!/bin/sh\ncd {folder}\necho run >> runs\necho '{said}'\n")
    program.chmod(0o755)
    return program


def test_a_plugins_token_is_kept_until_it_ends(tmp_path: Path, authority: Path) -> None:
    lasting = kubeconfig.find_cluster(
        {}, str(write(tmp_path, "plugin", plugin=str(plugin(tmp_path, "2099-01-01T00:00:00Z"))))
    )
    assert [lasting.token(), lasting.token()] == ["onetwo-1", "onetwo-1"]
    over = kubeconfig.find_cluster(
        {}, str(write(tmp_path, "plugin", plugin=str(plugin(tmp_path, "2001-01-01T00:00:00Z"))))
    )
    assert [over.token(), over.token()] == ["onetwo-2", "onetwo-3"]


def test_a_plugin_that_fails_is_named_and_what_it_printed_is_not(tmp_path: Path, authority: Path) -> None:
    program = tmp_path / "plugin"
    program.write_text("#!/bin/sh\necho secret-token\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match=r"credential plugin .*plugin gave no token") as caught:
        kubeconfig.find_cluster({}, str(write(tmp_path, "plugin", plugin=str(program)))).token()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "cannot be used"),
        ("{}", "contexts"),
        ("- x", "cannot be used"),
        (CONFIG % ("none", "x: 1", "x"), "none"),
    ],
)
def test_a_faulty_kubeconfig_is_one_sentence_with_its_path(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    if why == "none":  # a user that is not there is nobody, as for kubectl
        assert kubeconfig.find_cluster({}, str(path)).token() == ""
        return
    with pytest.raises(EngineError, match=f"kubeconfig {path}.*{why}|{why}.*{path}"):
        kubeconfig.find_cluster({}, str(path))


def test_no_kubeconfig_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"\.kube/config cannot be read.*KUBECONFIG"):
        kubeconfig.find_cluster({"HOME": str(tmp_path)})


def test_a_cluster_whose_certificate_is_not_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="insecure-skip-tls-verify"):
        kubeconfig.find_cluster({}, str(write(tmp_path, cluster="insecure-skip-tls-verify: true")))
