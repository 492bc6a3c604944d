"""Finds the API server: from a kubeconfig, or from inside a pod."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from taskcell.errors import EngineError, EngineUnavailable

#: Where a pod finds its ServiceAccount; the kubelet replaces the token in it before that expires.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds for a credential plugin, which may ask a cloud.
PLUGIN_TIMEOUT = 30.0
#: Seconds that a token of a plugin without an end is used for, and before its end at which a new one is fetched.
PLUGIN_TTL, PLUGIN_SLACK = 300.0, 30.0

#: Returns the token to send, which may change from one request to the next; empty where a certificate is enough. It may
#: block. Raises EngineError.
TokenSource = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and how to speak to it.

    Arguments:
        server: its address, `https://…`.
        namespace: in which sandboxes are made.
    """

    server: str
    namespace: str
    tls: ssl.SSLContext
    token: TokenSource


def find_cluster(
    environ: Mapping[str, str], path: str = "", namespace: str = "", *, account: Path = SERVICE_ACCOUNT
) -> Cluster:
    """Return the cluster that a kubeconfig's current context names, or the one that this process is a pod of.

    Raises EngineUnavailable when neither is there, EngineError when a kubeconfig is faulty.

    Arguments:
        path: of a kubeconfig; empty: `KUBECONFIG`, then a pod's own ServiceAccount, then `~/.kube/config`.
        namespace: empty: that of the context or of the ServiceAccount.
        account: folder of the ServiceAccount.
    """
    named = path or environ.get("KUBECONFIG", "")
    if not named and (account / "token").is_file() and environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster(environ, namespace, account)
    file = Path(named or Path(environ.get("HOME", "/root")) / ".kube/config")
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise EngineUnavailable(
            f"No Kubernetes cluster is configured: {file} cannot be read ({error.strerror}). Set KUBECONFIG, or "
            "engine.host to the path of a kubeconfig."
        ) from None
    try:
        return _from_config(YAML(typ="safe").load(text), file, namespace)
    except (YAMLError, KeyError, TypeError, IndexError, AttributeError, ValueError, ssl.SSLError) as error:
        raise EngineError(f"The kubeconfig {file} cannot be used: {type(error).__name__} {error}.") from None
    except OSError as error:
        raise EngineError(f"The kubeconfig {file} names a file that cannot be used: {error}.") from None


def _in_cluster(environ: Mapping[str, str], namespace: str, account: Path) -> Cluster:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    own = (account / "namespace").read_text("utf-8").strip()
    # Read again each time: it rotates.
    return Cluster(server, namespace or own, tls, lambda: (account / "token").read_text("utf-8").strip())


def _from_config(config: Any, file: Path, namespace: str) -> Cluster:
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config.get("users") or [], context.get("user", "")).get("user") or {}
    tls = ssl.create_default_context()
    if (authority := _data(cluster, "certificate-authority", file)) is not None:
        tls = ssl.create_default_context(cadata=authority.decode("ascii"))
    if cluster.get("insecure-skip-tls-verify"):
        raise EngineError(
            f"The kubeconfig {file} has insecure-skip-tls-verify, which shows every token to whoever is in between; "
            "give the cluster's certificate-authority instead."
        )
    pair = Pair(tls, user, file)
    pair.load()
    token = _token_of(user, file, tls)

    def identify() -> str:
        pair.load()
        return token()

    return Cluster(cluster["server"], namespace or context.get("namespace") or "default", tls, identify)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in [*entries, {"name": name}] if entry["name"] == name)
    return found


def _data(table: Mapping[str, str], key: str, file: Path) -> bytes | None:
    """The content of a key that is given inline or as a path, which counts from the kubeconfig."""
    if inline := table.get(f"{key}-data"):
        return base64.b64decode(inline)
    return file.parent.joinpath(table[key]).read_bytes() if table.get(key) else None


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL loads them from a file alone, which nobody else can read and which is gone afterwards."""
    handle, name = tempfile.mkstemp(prefix="taskcell-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        tls.load_cert_chain(name)
    finally:
        Path(name).unlink()


class Pair:
    """A client's certificate and key, which are read again when their files have changed: tools renew them.

    Arguments:
        user: of the kubeconfig.
        file: the kubeconfig.
    """

    def __init__(self, tls: ssl.SSLContext, user: Mapping[str, str], file: Path) -> None:
        self._tls, self._user, self._file = tls, user, file
        self._seen: list[tuple[int, int]] | None = None

    def load(self) -> None:
        """New connections have the pair as it is now; the one before stays while the files do not fit each other."""
        paths = [self._file.parent / self._user[key] for key in ("client-certificate", "client-key")
                 if self._user.get(key) and not self._user.get(f"{key}-data")]  # fmt: skip
        is_first = self._seen is None
        try:
            found = [(looked.st_mtime_ns, looked.st_ino) for looked in (path.stat() for path in paths)]
            if found == self._seen:
                return
            certificate, key = (_data(self._user, one, self._file) for one in ("client-certificate", "client-key"))
            if certificate is not None and key is not None:
                _load_pair(self._tls, certificate, key)
        except (OSError, ssl.SSLError):
            if is_first:
                raise
        else:
            self._seen = found


def _token_of(user: Mapping[str, Any], file: Path, tls: ssl.SSLContext) -> TokenSource:
    if token := user.get("token"):
        return lambda: str(token)
    if path := user.get("tokenFile"):
        return lambda: file.parent.joinpath(path).read_text("utf-8").strip()
    if plugin := user.get("exec"):
        return Plugin(plugin, tls)
    return lambda: ""


class Plugin:
    """A program that fetches a token, as EKS and GKE have it, or a certificate (`client.authentication.k8s.io`)."""

    def __init__(self, settings: Mapping[str, Any], tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._argv = [settings["command"], *(settings.get("args") or ())]
        self._env = {entry["name"]: entry["value"] for entry in settings.get("env") or ()}
        info = {"apiVersion": settings["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
        self._env["KUBERNETES_EXEC_INFO"] = json.dumps(info)
        self._token, self._until = "", 0.0

    def __call__(self) -> str:
        """Return the token; empty where the program gives a certificate. Raises EngineError."""
        if time.time() < self._until:
            return self._token
        name = self._argv[0]
        try:
            done = subprocess.run(
                self._argv,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PLUGIN_TIMEOUT,
                check=True,
            )
            status = json.loads(done.stdout)["status"]
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
            has_pair = bool(certificate and key)
            if has_pair:
                _load_pair(self._tls, certificate.encode(), key.encode())
            self._token = str(status.get("token", "") if has_pair else status["token"])
            end = status.get("expirationTimestamp")
        except subprocess.TimeoutExpired:
            raise EngineError(f"The credential plugin {name} did not answer within {PLUGIN_TIMEOUT:g} s.") from None
        except (OSError, subprocess.CalledProcessError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Not what it printed: that may hold a token.
            raise EngineError(f"The credential plugin {name} gave no token ({type(error).__name__}).") from None
        ends = datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() if end else time.time() + PLUGIN_TTL
        self._until = ends - PLUGIN_SLACK
        return self._token
