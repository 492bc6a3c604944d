"""An admission webhook of a cluster that changes each pod of a namespace, as service meshes and secret stores do."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from https_server import certificate_for
from taskcell.engine.kubernetes.api import Api

_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
#: The label that every namespace has from Kubernetes 1.21 on; an older one is given it.
_NAMED = "kubernetes.io/metadata.name"


class _Review(http.server.BaseHTTPRequestHandler):
    """Changes what it is asked about as `changes` say."""

    changes: Sequence[dict[str, Any]] = ()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
        patch = base64.b64encode(json.dumps(self.changes).encode()).decode()
        answer = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no lines of it."""


@asynccontextmanager
async def changed_by(admin: Api, changes: Sequence[dict[str, Any]], folder: Path) -> AsyncIterator[None]:
    """Every pod that is made in the namespace of `admin` is changed so (JSON Patch) while this is entered."""
    authority = certificate_for("localhost", folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    namespace = admin.cluster.namespace
    review = type("Review", (_Review,), {"changes": changes})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), review) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            label = {"metadata": {"labels": {_NAMED: namespace}}}
            await admin.call("PATCH", f"/api/v1/namespaces/{namespace}", label, "application/merge-patch+json")
            await admin.call("POST", _WEBHOOKS, _webhook(namespace, server.server_address[1], authority))
            yield
        finally:
            await admin.call("DELETE", f"{_WEBHOOKS}/{namespace}")
            server.shutdown()
            thread.join()


def _webhook(namespace: str, port: int, authority: str) -> dict[str, Any]:
    webhook = {
        "name": "changes.test.taskcell.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchLabels": {_NAMED: namespace}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "clientConfig": {
            "url": f"https://localhost:{port}/",
            "caBundle": base64.b64encode(authority.encode()).decode(),
        },
    }
    return {"metadata": {"name": namespace}, "webhooks": [webhook]}
