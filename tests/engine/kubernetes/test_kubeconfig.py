"""Where the Kubernetes engine finds its cluster, and by what it identifies itself."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from observe import eventually
from taskcell.engine.kubernetes import credentials, kubeconfig
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
    return make_authority(tmp_path)


def make_authority(tmp_path: Path) -> Path:
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
        ("{}", "current-context"),
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


# --- more than one file, and more than a token -----------------------------------------------------------------------


def document(**changes: Any) -> dict[str, Any]:
    """A kubeconfig with one context `c`, cluster `k` and user `u`; `cluster` and `user` are what they hold."""
    cluster = {"server": "https://k.test:6443"} | changes.pop("cluster", {})
    found = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": changes.pop("user", {"token": "secret-token"})}],
    }
    return found | changes


def found_in(folder: Path, **changes: Any) -> kubeconfig.Cluster:
    path = folder / "made"
    path.write_text(json.dumps(document(**changes)))
    return kubeconfig.find_cluster({}, str(path))


def test_several_files_are_one_in_which_the_first_counts(tmp_path: Path) -> None:
    contexts, users = tmp_path / "a" / "contexts", tmp_path / "b" / "users"
    for path in (contexts, users):
        path.parent.mkdir()
    contexts.write_text(json.dumps({key: value for key, value in document().items() if key != "users"}))
    users.write_text(json.dumps(document(user={"tokenFile": "token"}, cluster={"server": "https://other.test"})))
    (tmp_path / "b" / "token").write_text("beside\n")
    files = [str(tmp_path / "nowhere"), str(contexts), "", str(users)]
    found = kubeconfig.find_cluster({"KUBECONFIG": ":".join(files)})
    assert (found.server, found.token()) == ("https://k.test:6443", "beside")
    with pytest.raises(EngineUnavailable, match="nowhere cannot be read"):
        kubeconfig.find_cluster({"KUBECONFIG": f"{tmp_path}/nowhere:{tmp_path}/neither"})


def test_ways_to_a_cluster_are_what_the_kubeconfig_says(tmp_path: Path) -> None:
    cluster = {
        "server": "https://[2001:db8::1]:6443/k8s/clusters/c-1/",
        "tls-server-name": "kubernetes.default",
        "proxy-url": "http://proxy.test:3128",
    }
    user = {"token": "t", "as": "ada", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"why": ["x"]}}
    found = found_in(tmp_path, cluster=cluster, user=user)
    assert found.server == "https://[2001:db8::1]:6443/k8s/clusters/c-1"
    assert (found.server_name, found.proxy) == ("kubernetes.default", "http://proxy.test:3128")
    assert found.headers == (
        ("Impersonate-User", "ada"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-why", "x"),
    )


PLUGIN_API = "client.authentication.k8s.io/v1"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user": {"auth-provider": {"name": "gcp"}}}, "names an auth-provider, which Kubernetes 1.26 has given up"),
        ({"user": {"username": "a", "password": "secret"}}, "has a username and password"),
        (
            {"user": {"exec": {"apiVersion": PLUGIN_API, "command": "x", "interactiveMode": "Always"}}},
            "is to ask on a terminal",
        ),
        ({"user": {"exec": {"apiVersion": PLUGIN_API}}}, "it lacks 'command'"),
        ({"user": {"client-certificate-data": "!secret!", "client-key-data": "eA=="}}, "-data that is not base64"),
        ({"user": {"client-certificate-data": "c2VjcmV0", "client-key-data": "eA=="}}, "none that OpenSSL takes"),
        ({"cluster": {"certificate-authority-data": "c2VjcmV0"}}, "cannot be used"),
        ({"cluster": {"certificate-authority": "nowhere.crt"}}, r"names a file .*nowhere\.crt"),
        ({"cluster": {"server": "k.test:6443"}}, "a server that is not an address"),
        ({"cluster": {"proxy-url": "socks5://secret:x@p.test"}}, "a proxy-url that is not"),
        ({"current-context": "other"}, "has no context 'other' in contexts"),
        ({"current-context": ""}, "has no current-context"),
        ({"clusters": []}, "has no cluster 'k' in clusters"),
        ({"users": "secret"}, "is not a kubeconfig"),
        ({"clusters": [{"secret": 1}]}, "it lacks 'name'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_without_a_secret(tmp_path: Path, changes: Any, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        found_in(tmp_path, **changes).token()
    assert "secret" not in str(caught.value)


def laughs() -> str:
    """Anchors that would expand to a text without an end."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for number in range(20):
        name, last = chr(98 + number), chr(97 + number)
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("users: [{name: a, token: secret-1}]\nusers: [{token: secret-2}]\n", "not YAML at line 2"),
        ("token: secret\n\t- x: [", "not YAML at line"),
        ("[" * 900_000, "nested too deeply"),
        ("- " * 400_000, "nested too deeply"),
        ("x" * (2 << 20), "more than 1 MiB"),
        (laughs(), "has no current-context"),
        ("secret: é", "has no current-context"),
    ],
    ids=["a key twice", "a tab", "deep", "deep in lists", "large", "anchors that expand", "other letters"],
)
def test_hostile_text_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(EngineError, match=why) as caught:
        kubeconfig.find_cluster({}, str(path))
    assert "secret" not in str(caught.value)


def test_a_pipe_or_a_folder_in_the_place_of_a_kubeconfig_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(EngineUnavailable, match="it is not a file"):
            kubeconfig.find_cluster({}, str(path))


def script(folder: Path, text: str) -> dict[str, Any]:
    """A user whose plugin is a script, which is named relative to the kubeconfig."""
    path = folder / "asks"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    told = {"command": "./asks", "args": None, "provideClusterInfo": True}
    return {"exec": told | {"apiVersion": "client.authentication.k8s.io/v1beta1"}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo secret", r"gave no token \(JSONDecodeError\)"),
        ("echo secret >&2; exit 7", "ended with code 7. Run `kubectl get pods`"),
        ("""echo '{"status": {}}'""", r"gave no token \(KeyError\)"),
        ("""echo '{"status": {"token": "secret", "expirationTimestamp": "soon"}}'""", r"gave no token \(ValueError\)"),
        ("""echo '{"status": null}'""", r"gave no token \(AttributeError\)"),
        ("read -r answer </dev/tty || exit 3", "ended with code"),
        ("head -c 3000000 /dev/zero", r"gave no token \(JSONDecodeError\)"),
    ],
)
def test_a_plugin_that_gives_no_token_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        found_in(tmp_path, user=script(tmp_path, text)).token()
    assert "secret" not in str(caught.value)


def test_a_plugin_that_hangs_ends_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PLUGIN_TIMEOUT", 0.3)
    found = found_in(tmp_path, user=script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; wait"))
    with pytest.raises(EngineError, match="did not answer within"):
        found.token()
    if (tmp_path / "pid").exists() and (pid := (tmp_path / "pid").read_text().strip()):
        assert eventually(lambda: not Path(f"/proc/{pid}/exe").exists())


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": PLUGIN_API, "command": "no-such-plugin"}}
    with pytest.raises(EngineError, match="plugin no-such-plugin is not installed where the server runs"):
        found_in(tmp_path, user=user).token()


def test_a_plugin_hears_of_its_cluster_and_runs_again_when_its_token_was_refused(tmp_path: Path) -> None:
    says = """'{"status": {"token": "t"}}'"""
    user = script(tmp_path, f'echo "$KUBERNETES_EXEC_INFO" >> {tmp_path}/heard; echo {says}')
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    found = found_in(tmp_path, user=user, cluster={"tls-server-name": "n", "extensions": [extension]})
    assert [found.token(), found.token()] == ["t", "t"]
    found.renew()
    assert found.token() == "t"
    heard = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    assert len(heard) == 2
    assert heard[0]["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://k.test:6443", "tls-server-name": "n", "config": {"audience": "a"}},
    }


def test_in_a_pod_an_authority_that_was_replaced_counts_beside_the_last_one(tmp_path: Path, authority: Path) -> None:
    (tmp_path / "namespace").write_text("sandboxes")
    (tmp_path / "token").write_text("t")
    found = kubeconfig.find_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1"}, account=tmp_path)
    assert found.server == "https://[fd00::1]:443"
    before = found.tls.cert_store_stats()["x509"]
    make_authority(tmp_path)
    os.utime(authority, ns=(1, 1))
    assert found.token() == "t"
    assert found.tls.cert_store_stats()["x509"] == before + 1


@pytest.mark.anyio
async def test_a_token_that_no_header_can_hold_is_one_sentence(tmp_path: Path) -> None:
    api = Api(lambda: found_in(tmp_path, user={"token": "secret\r\nX-Evil: 1"}))
    with pytest.raises(EngineError, match="holds what no token does") as caught:
        await api.call("GET", "/version")
    assert "secret" not in str(caught.value)
