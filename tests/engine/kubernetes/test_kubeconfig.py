"""Where the Kubernetes engine finds its cluster, and by what it identifies itself."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from taskcell.engine.kubernetes import kubeconfig
from taskcell.engine.kubernetes.api import Api
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
- {name: pair, user: {client-certificate: client.crt, client-key: client.key}}
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


def pair(folder: Path, name: str) -> None:
    """A client's certificate for somebody, and its key, from the authority."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    request = [openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-subj", f"/CN={name}", "-keyout", folder / "new.key", "-out", folder / "new.csr"]  # fmt: skip
    sign = [openssl, "x509", "-req", "-in", folder / "new.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
            "-CAcreateserial", "-out", folder / "new.crt"]  # fmt: skip
    for command in (request, sign):
        subprocess.run(command, check=True, capture_output=True)
    for kind in ("crt", "key"):
        (folder / f"new.{kind}").rename(folder / f"client.{kind}")


def shown_to_server(folder: Path, client: ssl.SSLContext) -> str:
    """Whose certificate a server is shown at a new connection; no byte leaves this process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "ca.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [context.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname="test")]
    client_end = ends[1]
    assert client_end.context is client
    for _ in range(8):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    found = ends[0].getpeercert()
    assert found
    return str(found["subject"][0][0][1])  # type: ignore[index]


def open_context(found: kubeconfig.Cluster) -> ssl.SSLContext:
    found.tls.check_hostname = False  # the test's server has no name
    return found.tls


def test_a_clients_certificate_is_read_again_when_it_was_renewed(tmp_path: Path, authority: Path) -> None:
    pair(tmp_path, "first")
    found = kubeconfig.find_cluster({}, str(write(tmp_path, "pair")))
    assert shown_to_server(tmp_path, open_context(found)) == "first"
    pair(tmp_path, "second")
    assert found.token() == ""
    assert shown_to_server(tmp_path, found.tls) == "second"
    (tmp_path / "client.key").write_text("half writ")  # while it is renewed, the last one goes on
    assert found.token() == ""
    assert shown_to_server(tmp_path, found.tls) == "second"


def test_a_plugin_may_give_a_certificate_in_the_place_of_a_token(tmp_path: Path, authority: Path) -> None:
    pair(tmp_path, "plugin")
    status = {
        "clientCertificateData": (tmp_path / "client.crt").read_text(),
        "clientKeyData": (tmp_path / "client.key").read_text(),
    }
    (tmp_path / "answer").write_text(json.dumps({"kind": "ExecCredential", "status": status}))
    program = tmp_path / "plugin"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
    program.chmod(0o755)
    found = kubeconfig.find_cluster({}, str(write(tmp_path, "plugin", plugin=str(program))))
    assert found.token() == ""
    assert shown_to_server(tmp_path, open_context(found)) == "plugin"


def test_in_a_pod_the_token_is_read_again_each_time(tmp_path: Path, authority: Path) -> None:
    (tmp_path / "namespace").write_text("sandboxes\n")
    (tmp_path / "token").write_text("one\n")
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "HOME": str(tmp_path / "nowhere")}
    found = kubeconfig.find_cluster(environ, account=tmp_path)
    assert (found.server, found.namespace, found.token()) == ("https://10.96.0.1:443", "sandboxes", "one")
    (tmp_path / "token").write_text("two\n")  # as the kubelet does before it expires
    assert found.token() == "two"


@pytest.mark.anyio
async def test_a_token_that_cannot_be_read_is_an_error_that_says_so(tmp_path: Path, authority: Path) -> None:
    api = Api(lambda: kubeconfig.find_cluster({}, str(write(tmp_path, "file"))))
    with pytest.raises(EngineUnavailable, match=r"token for the Kubernetes API at https://b.test .*token\.txt"):
        await api.call("GET", "/version")


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
