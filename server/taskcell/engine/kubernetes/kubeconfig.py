"""Finds the API server: from a kubeconfig, or from inside a pod."""

from __future__ import annotations

import base64
import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from taskcell.engine.kubernetes.credentials import Pair, Plugin, TokenSource, data_of, token_of
from taskcell.errors import EngineError, EngineUnavailable

#: Where a pod finds its ServiceAccount; the kubelet replaces the token in it before that expires, and the authority.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Bytes of a kubeconfig: a hundred clusters with their certificates have a third of that.
CONFIG_MAX = 1 << 20
#: Levels of brackets, or of lists in one line; a kubeconfig has ten.
DEPTH_MAX = 64
_BRACKETS, _NESTED_LINE = re.compile(r"[\[\]{}]"), re.compile(rf"(?:[-?:][ \t]+){{{DEPTH_MAX}}}")
_PROXIES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and how to speak to it.

    Arguments:
        server: its address, `https://…`; it may have a path.
        namespace: in which sandboxes are made.
        renew: has the next token fetched anew, since the last one was refused.
        server_name: the name in its certificate; empty: that of its address.
        proxy: address of the proxy to it; empty: what HTTPS_PROXY and NO_PROXY say.
        headers: that each request has, beside who asks.
    """

    server: str
    namespace: str
    tls: ssl.SSLContext
    token: TokenSource
    renew: Callable[[], None] = lambda: None
    server_name: str = ""
    proxy: str = ""
    headers: tuple[tuple[str, str], ...] = ()


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
    named = [Path(path)] if path else [Path(one) for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if not named and (account / "token").is_file() and environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster(environ, namespace, account)
    files = named or [Path(environ.get("HOME", "/root")) / ".kube/config"]
    # As kubectl: of several, those that are not there are left out.
    found = [(file, _read(file)) for file in files if len(files) == 1 or file.exists()]
    if not found:
        raise _unread(files[0], "No such file or directory")
    shown = ", ".join(str(file) for file, _ in found)
    try:
        return _from_config(_Merged(found), namespace)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ssl.SSLError) as error:
        # Not what it says: that may hold a token.
        raise EngineError(f"The kubeconfig {shown} cannot be used: {_missing(error)}.") from None
    except OSError as error:
        raise EngineError(f"The kubeconfig {shown} names a file that cannot be used: {error}.") from None


def _missing(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args[0] in _KEYS:
        return f"it lacks '{error.args[0]}' where it is needed"
    if isinstance(error, ssl.SSLError):
        return f"a certificate in it, or a key, is none that OpenSSL takes ({error.reason})"
    return f"it is not a kubeconfig ({type(error).__name__})"


_KEYS = frozenset({"contexts", "clusters", "context", "cluster", "server", "command", "apiVersion", "name", "value"})


def _unread(file: Path, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"No Kubernetes cluster is configured: {file} cannot be read ({why}). Set KUBECONFIG, or engine.host to the "
        "path of a kubeconfig."
    )


def _read(file: Path) -> Mapping[str, Any]:
    """A kubeconfig's content. Raises EngineUnavailable, EngineError."""
    try:
        looked = file.stat()
        if not stat.S_ISREG(looked.st_mode):
            raise _unread(file, "it is not a file")
        if looked.st_size > CONFIG_MAX:
            raise _unread(file, f"it has more than {CONFIG_MAX >> 20} MiB")
        text = file.read_text("utf-8")
        if _is_deep(text):
            raise _unread(file, "it is nested too deeply for a kubeconfig")
        found = YAML(typ="safe").load(text)
    except OSError as error:
        raise _unread(file, str(error.strerror)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        # Not the line itself: it may hold a token.
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        at = f" at line {mark.line + 1}" if mark is not None else ""
        raise EngineError(
            f"The kubeconfig {file} cannot be used: it is not YAML{at} ({type(error).__name__})."
        ) from None
    if not isinstance(found, dict):
        raise EngineError(f"The kubeconfig {file} cannot be used: it is not a kubeconfig.")
    return found


def _is_deep(text: str) -> bool:
    """Whether something is nested so deeply that no kubeconfig is: the parser takes minutes for that."""
    if _NESTED_LINE.search(text):
        return True
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > DEPTH_MAX:
            return True
    return False


class _Merged:
    """Several kubeconfigs as one: of each name, and of what stands there once, the first counts."""

    def __init__(self, found: list[tuple[Path, Mapping[str, Any]]]) -> None:
        self._found = found
        self.shown = ", ".join(str(file) for file, _ in found)

    @property
    def current(self) -> str:
        """The name of the current context. Raises EngineError."""
        name = next((one["current-context"] for _, one in self._found if one.get("current-context")), "")
        if not name:
            raise EngineError(
                f"The kubeconfig {self.shown} has no current-context: choose one by `kubectl config use-context NAME`."
            )
        return str(name)

    def entry(self, kind: str, name: str) -> tuple[Path, Mapping[str, Any]] | None:
        """What a name stands for, and the file that says so; None where none does."""
        for file, one in self._found:
            for entry in one.get(f"{kind}s") or ():
                if entry["name"] == name:
                    return file, entry.get(kind) or {}
        return None

    def needed(self, kind: str, name: str) -> tuple[Path, Mapping[str, Any]]:
        """The same. Raises EngineError."""
        found = self.entry(kind, name)
        if found is None:
            raise EngineError(f"The kubeconfig {self.shown} cannot be used: it has no {kind} '{name}' in {kind}s.")
        return found


def _in_cluster(environ: Mapping[str, str], namespace: str, account: Path) -> Cluster:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    authority = account / "ca.crt"
    tls = ssl.create_default_context(cafile=str(authority))
    own = (account / "namespace").read_text("utf-8").strip()
    seen = authority.stat().st_mtime_ns

    def identify() -> str:
        nonlocal seen
        with suppress(OSError, ssl.SSLError):  # half written: the next request looks again
            if (now := authority.stat().st_mtime_ns) != seen:
                tls.load_verify_locations(cafile=str(authority))
                seen = now
        return (account / "token").read_text("utf-8").strip()  # read again each time: it rotates

    return Cluster(server, namespace or own, tls, identify)


def _from_config(config: _Merged, namespace: str) -> Cluster:
    _, context = config.needed("context", config.current)
    cluster_file, cluster = config.needed("cluster", context["cluster"])
    file, user = config.entry("user", context.get("user", "")) or (cluster_file, {})  # one that is not there is nobody
    server = str(cluster["server"]).rstrip("/")
    parts = urlsplit(server)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise EngineError(f"The kubeconfig {cluster_file} has a server that is not an address https://….")
    proxy = str(cluster.get("proxy-url") or "")
    if proxy and urlsplit(proxy).scheme not in _PROXIES:
        raise EngineError(f"The kubeconfig {cluster_file} has a proxy-url that is not http://… or https://….")
    tls = ssl.create_default_context()
    authority = data_of(cluster, "certificate-authority", cluster_file)
    if authority is not None:
        tls = ssl.create_default_context(cadata=authority.decode("ascii"))
    if cluster.get("insecure-skip-tls-verify"):
        raise EngineError(
            f"The kubeconfig {cluster_file} has insecure-skip-tls-verify, which shows every token to whoever is in "
            "between; give the cluster's certificate-authority instead."
        )
    pair = Pair(tls, user, file)
    pair.load()
    told = {"server": server, "tls-server-name": cluster.get("tls-server-name"), "proxy-url": proxy,
            "certificate-authority-data": authority and base64.b64encode(authority).decode(),
            "config": _plugins_config(cluster)}  # fmt: skip
    token = token_of(user, file, tls, {key: value for key, value in told.items() if value})

    def identify() -> str:
        pair.load()
        return token()

    return Cluster(
        server,
        namespace or str(context.get("namespace") or "default"),
        tls,
        identify,
        token.renew if isinstance(token, Plugin) else lambda: None,
        str(cluster.get("tls-server-name") or ""),
        proxy,
        _impersonation(user),
    )


def _plugins_config(cluster: Mapping[str, Any]) -> Any:
    """What a plugin is to hear about its cluster (`client.authentication.k8s.io/exec`)."""
    every = cluster.get("extensions") or ()
    return next((one["extension"] for one in every if one["name"] == "client.authentication.k8s.io/exec"), None)


def _impersonation(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Headers by which a user acts as another one, as `kubectl --as`."""
    found = [("Impersonate-User", str(user["as"]))] if user.get("as") else []
    found += [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
    found += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        found += [(f"Impersonate-Extra-{key}", str(value)) for value in values]
    return tuple(found)
