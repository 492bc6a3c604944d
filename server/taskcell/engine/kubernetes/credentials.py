"""What a kubeconfig's user identifies itself with: certificates, tokens, and programs that fetch either."""

from __future__ import annotations

import base64
import binascii
import json
import os
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from taskcell.errors import EngineError

#: Seconds for a credential plugin, which may ask a cloud.
PLUGIN_TIMEOUT = 30.0
#: Seconds that a token of a plugin without an end is used for, and before its end at which a new one is fetched.
PLUGIN_TTL, PLUGIN_SLACK = 300.0, 30.0

#: Returns the token to send, which may change from one request to the next; empty where a certificate is enough. It may
#: block. Raises EngineError.
TokenSource = Callable[[], str]


def data_of(table: Mapping[str, Any], key: str, file: Path) -> bytes | None:
    """The content of a key that is given inline or as a path, which counts from the kubeconfig. Raises OSError."""
    if inline := table.get(f"{key}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise EngineError(f"The kubeconfig {file} has a {key}-data that is not base64.") from None
    return file.parent.joinpath(table[key]).read_bytes() if table.get(key) else None


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL loads them from a file alone, which nobody else can read and which is gone afterwards."""
    handle, name = tempfile.mkstemp(prefix="taskcell-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        tls.load_cert_chain(name, password="")
    finally:
        Path(name).unlink()


class Pair:
    """A client's certificate and key, which are read again when their files have changed: tools renew them.

    Arguments:
        user: of the kubeconfig.
        file: the kubeconfig.
    """

    def __init__(self, tls: ssl.SSLContext, user: Mapping[str, Any], file: Path) -> None:
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
            certificate, key = (data_of(self._user, one, self._file) for one in ("client-certificate", "client-key"))
            if certificate is not None and key is not None:
                _load_pair(self._tls, certificate, key)
        except (OSError, ssl.SSLError):
            if is_first:
                raise
        else:
            self._seen = found


def token_of(user: Mapping[str, Any], file: Path, tls: ssl.SSLContext, cluster: Mapping[str, Any]) -> TokenSource:
    """Where a user's token comes from. Raises EngineError: from nowhere that taskcell knows.

    Arguments:
        cluster: the kubeconfig's, for plugins that ask for it.
    """
    if "auth-provider" in user:
        raise EngineError(
            f"The kubeconfig {file} names an auth-provider, which Kubernetes 1.26 has given up: use a credential "
            "plugin (`exec`), such as gke-gcloud-auth-plugin or kubelogin."
        )
    if user.get("username") or user.get("password"):
        raise EngineError(
            f"The kubeconfig {file} has a username and password, which Kubernetes 1.19 has given up: use a token, a "
            "client certificate or a credential plugin."
        )
    if path := user.get("tokenFile"):
        return lambda: file.parent.joinpath(path).read_text("utf-8").strip()
    if token := user.get("token"):
        return lambda: str(token)
    if plugin := user.get("exec"):
        return Plugin(plugin, tls, file, cluster)
    return lambda: ""


class Plugin:
    """A program that fetches a token, as EKS and GKE have it, or a certificate (`client.authentication.k8s.io`).

    Arguments:
        settings: `exec` of the kubeconfig.
        file: the kubeconfig.
        cluster: what the program hears of where it asks for it (`provideClusterInfo`).
    """

    def __init__(
        self, settings: Mapping[str, Any], tls: ssl.SSLContext, file: Path, cluster: Mapping[str, Any]
    ) -> None:
        self._tls = tls
        command = str(settings["command"])
        if os.sep in command:
            command = str(file.parent / command)
        if settings.get("interactiveMode") == "Always":
            raise EngineError(
                f"The credential plugin {command} is to ask on a terminal (interactiveMode: Always), and a server has "
                "none: use one that does not, or a token."
            )
        self._argv = [command, *map(str, settings.get("args") or ())]
        self._env = {str(entry["name"]): str(entry["value"]) for entry in settings.get("env") or ()}
        spec: dict[str, Any] = {"interactive": False}
        if settings.get("provideClusterInfo"):
            spec["cluster"] = cluster
        info = {"apiVersion": settings["apiVersion"], "kind": "ExecCredential", "spec": spec}
        self._env["KUBERNETES_EXEC_INFO"] = json.dumps(info)
        self._token, self._until = "", 0.0
        self._turn = threading.Lock()

    def renew(self) -> None:
        """Have the program run before the next request: what it gave was refused."""
        self._until = 0.0

    def __call__(self) -> str:
        """Return the token; empty where the program gives a certificate. Raises EngineError."""
        with self._turn:
            if time.time() >= self._until:
                self._ask()
            return self._token

    def _ask(self) -> None:
        name = self._argv[0]
        try:
            status = json.loads(self._said())["status"]
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
            has_pair = bool(certificate and key)
            token = str(status.get("token", "") if has_pair else status["token"])
            end = status.get("expirationTimestamp")
            ends = datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() if end else time.time() + PLUGIN_TTL
            if has_pair:
                _load_pair(self._tls, certificate.encode(), key.encode())
        except subprocess.TimeoutExpired:
            raise EngineError(f"The credential plugin {name} did not answer within {PLUGIN_TIMEOUT:g} s.") from None
        except subprocess.CalledProcessError as error:
            raise EngineError(
                f"The credential plugin {name} gave no token: it ended with code {error.returncode}. Run `kubectl get "
                "pods` with the same kubeconfig to see what it says; it may want you to log in."
            ) from None
        except FileNotFoundError:
            raise EngineError(f"The credential plugin {name} is not installed where the server runs.") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Not what it printed: that may hold a token.
            raise EngineError(f"The credential plugin {name} gave no token ({type(error).__name__}).") from None
        self._token, self._until = token, ends - PLUGIN_SLACK

    def _said(self) -> bytes:
        """What the program prints. It has no terminal, and ends with all that it started."""
        with tempfile.TemporaryFile() as said:  # one that a program of its own holds open is not waited for
            process = subprocess.Popen(
                self._argv,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                code = process.wait(PLUGIN_TIMEOUT)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if code:
                raise subprocess.CalledProcessError(code, self._argv[0])
            said.seek(0)
            return said.read(_PRINTED_MAX)


#: Bytes that a plugin may print: a token and two certificates.
_PRINTED_MAX = 1 << 20
