"""What the server's account must be allowed to do in its namespace, and what of that it is not."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.network_policies import POLICY_NAME

#: Group, resource, subresource, verbs.
Rights = Sequence[tuple[str, str, str, Sequence[str]]]
#: What an engine needs. `get` of pods/exec: API servers before 1.35 judge a WebSocket by its method.
RIGHTS: Rights = (
    ("", "pods", "", ("create", "get", "list", "watch", "patch", "delete")),
    ("", "pods", "exec", ("create", "get")),
    ("", "configmaps", "", ("create", "get")),
    ("networking.k8s.io", "networkpolicies", "", ("create", "list", "patch")),
)
#: What servers need beside that which share a deployment.
SHARING: Rights = (
    ("coordination.k8s.io", "leases", "", ("create", "get", "list", "patch", "delete")),
    ("", "secrets", "", ("create", "get")),
)
#: What an engine needs beside that where files are on disk.
DISKS: Rights = (("", "persistentvolumeclaims", "", ("create", "get", "delete")),)
#: The only object for which a verb is needed, where a Role may name it.
_ONLY = {("networkpolicies", "patch"): POLICY_NAME}
#: Where the cluster is asked about one's own rights; every account may.
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def missing_rights(api: Api, rights: Rights = RIGHTS, *, secret: str = "") -> tuple[str, ...]:
    """Rights that the account lacks, as in `delete pods`. Raises EngineUnavailable, EngineError.

    Arguments:
        secret: the name of the only Secret that is to be read.
    """
    lacking: list[str] = []

    async def ask(group: str, resource: str, subresource: str, verb: str) -> None:
        what = {"namespace": api.cluster.namespace, "verb": verb, "group": group, "resource": resource}
        named = secret if (resource, verb) == ("secrets", "get") else _ONLY.get((resource, verb), "")
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what | {"subresource": subresource, "name": named}},
        }
        if not (await api.call("POST", _REVIEWS, body))["status"].get("allowed"):
            lacking.append(f"{verb} {resource}{subresource and '/' + subresource}{named and ' ' + named}")

    async with anyio.create_task_group() as group:
        for api_group, resource, subresource, verbs in rights:
            for verb in verbs:
                group.start_soon(ask, api_group, resource, subresource, verb)
    return tuple(sorted(lacking))
