"""Pod Security Admission, which Kubernetes has from 1.23 on, as the webhook that its project has for older clusters.

What is checked of a pod is what the Pod Security Standards say of the fields that taskcell's pods may set.
"""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from https_server import certificate_for
from taskcell.engine.kubernetes.api import Api

#: The label by which a namespace asks for a level.
ENFORCE = "pod-security.kubernetes.io/enforce"
#: What a container may add at "baseline".
BASELINE_CAPABILITIES = frozenset(
    ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
     "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT")
)  # fmt: skip
RESTRICTED_VOLUMES = frozenset(("configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"))
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_NAME = "pod-security-webhook.kubernetes.io"


def violations(pod: dict[str, Any], level: str) -> Iterator[str]:
    spec = pod["spec"]
    yield from _baseline(spec)
    if level == "restricted":
        yield from _restricted(spec)


def _baseline(spec: dict[str, Any]) -> Iterator[str]:
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if any("hostPath" in volume for volume in spec.get("volumes", ())):
        yield "hostPath volumes"
    for name, context in _contexts(spec):
        if context.get("privileged"):
            yield f'privileged (container "{name}" must not set securityContext.privileged=true)'
        if set(context.get("capabilities", {}).get("add", ())) - BASELINE_CAPABILITIES:
            yield f'non-default capabilities (container "{name}")'


def _restricted(spec: dict[str, Any]) -> Iterator[str]:
    if any(set(volume) - {"name"} - RESTRICTED_VOLUMES for volume in spec.get("volumes", ())):
        yield "restricted volume types"
    for name, context in _contexts(spec):
        if context.get("allowPrivilegeEscalation") is not False:
            yield f'allowPrivilegeEscalation != false (container "{name}")'
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f'unrestricted capabilities (container "{name}" must set securityContext.capabilities.drop=["ALL"])'
        if not {**spec.get("securityContext", {}), **context}.get("runAsNonRoot"):
            yield f'runAsNonRoot != true (pod or container "{name}" must set securityContext.runAsNonRoot=true)'
        if context.get("runAsUser") == 0:
            yield f'runAsUser=0 (container "{name}" must not set runAsUser=0)'
        seccomp = {**spec.get("securityContext", {}), **context}.get("seccompProfile", {}).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            yield f'seccompProfile (pod or container "{name}" must set securityContext.seccompProfile.type)'


def _contexts(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for container in spec["containers"]:
        yield container["name"], container.get("securityContext", {})


class _Review(http.server.BaseHTTPRequestHandler):
    """The path of a request names the level."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
        level = self.path.partition("?")[0].strip("/")
        found = "; ".join(violations(request["object"], level))
        answer: dict[str, Any] = {"uid": request["uid"], "allowed": not found}
        if found:
            name = request["object"]["metadata"]["name"]
            said = f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {found}'
            answer["status"] = {"code": 403, "reason": "Forbidden", "message": said}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no lines of it."""


@asynccontextmanager
async def enforced(admin: Api, level: str, folder: Path) -> AsyncIterator[None]:
    """The namespace of `admin` enforces a level: `baseline` or `restricted`."""
    authority = certificate_for("localhost", folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    namespace = admin.cluster.namespace
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Review) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            await _label(admin, f"/api/v1/namespaces/{namespace}", level)
            await admin.call("POST", _WEBHOOKS, _webhook(namespace, level, server.server_address[1], authority))
            yield
        finally:
            await admin.call("DELETE", f"{_WEBHOOKS}/{namespace}")
            server.shutdown()
            thread.join()


async def _label(admin: Api, path: str, level: str) -> None:
    await admin.call("PATCH", path, {"metadata": {"labels": {ENFORCE: level}}}, "application/merge-patch+json")


def _webhook(namespace: str, level: str, port: int, authority: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["pods"]}
    webhook = {
        "name": _NAME,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchLabels": {ENFORCE: level}},
        "rules": [rule],
        "clientConfig": {
            "url": f"https://localhost:{port}/{level}",
            "caBundle": base64.b64encode(authority.encode()).decode(),
        },
    }
    return {"metadata": {"name": namespace}, "webhooks": [webhook]}
