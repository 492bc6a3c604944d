"""Admission webhooks of the cluster that the test itself answers: one that refuses, and one that changes."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from https_server import certificate_for
from taskcell.engine.kubernetes.api import Api

_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
_VALIDATING, _MUTATING = f"{_WEBHOOKS}/validatingwebhookconfigurations", f"{_WEBHOOKS}/mutatingwebhookconfigurations"
#: The label of a namespace whose objects are asked about, and the longest that an API server waits, in seconds.
_LABEL, _LONGEST = "taskcell.dev/admission-of-tests", 30

#: What is to be made or changed (`request` of an AdmissionReview) -> why it may not be; empty: it may.
Review = Callable[[dict[str, Any]], str]
#: The same request -> the fields of the answer (`response` of an AdmissionReview) beside its uid.
_Answer = Callable[[dict[str, Any]], dict[str, Any]]


class _Answers(http.server.BaseHTTPRequestHandler):
    def __init__(self, answer: _Answer, *about: Any) -> None:
        self._answer = answer
        super().__init__(*about)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
        answer = {"uid": request["uid"], **self._answer(request)}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no lines of it."""


@asynccontextmanager
async def reviewed(
    admin: Api, folder: Path, review: Review, resources: Sequence[str], operations: Sequence[str] = ("CREATE", "UPDATE")
) -> AsyncIterator[None]:
    """Have `review`, in a thread, decide on objects of the namespace of `admin`. `folder` is for a key."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        refusal = review(request)
        status = {"status": {"code": 403, "reason": "Forbidden", "message": refusal}} if refusal else {}
        return {"allowed": not refusal, **status}

    async with _asked(_VALIDATING, admin, folder, answer, resources=resources, operations=operations):
        yield


@asynccontextmanager
async def changed_by(admin: Api, changes: Sequence[dict[str, Any]], folder: Path) -> AsyncIterator[None]:
    """Every pod that is made in the namespace of `admin` is changed so (JSON Patch), as service meshes do."""
    patch = base64.b64encode(json.dumps(changes).encode()).decode()
    answer = {"allowed": True, "patchType": "JSONPatch", "patch": patch}
    async with _asked(_MUTATING, admin, folder, lambda _: answer, resources=["pods"], operations=["CREATE"]):
        yield


@asynccontextmanager
async def _asked(
    kind: str, admin: Api, folder: Path, answer: _Answer, *, resources: Sequence[str], operations: Sequence[str]
) -> AsyncIterator[None]:
    authority = certificate_for("localhost", folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    name = admin.cluster.namespace
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, answer)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            labels = {"metadata": {"labels": {_LABEL: name}}}
            await admin.call("PATCH", f"/api/v1/namespaces/{name}", labels, "application/merge-patch+json")
            webhook = _webhook(name, server.server_address[1], authority, resources, operations)
            await admin.call("POST", kind, webhook)
            yield
        finally:
            await admin.call("DELETE", f"{kind}/{name}")
            server.shutdown()
            thread.join()


def _webhook(
    name: str, port: int, authority: str, resources: Sequence[str], operations: Sequence[str]
) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": list(operations), "resources": list(resources)}
    bundle = base64.b64encode(authority.encode()).decode()
    webhook = {
        "name": "tests.taskcell.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": _LONGEST,
        "namespaceSelector": {"matchLabels": {_LABEL: name}},
        "rules": [rule],
        "clientConfig": {"url": f"https://localhost:{port}/", "caBundle": bundle},
    }
    return {"metadata": {"name": name}, "webhooks": [webhook]}
