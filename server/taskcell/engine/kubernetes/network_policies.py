"""What the NetworkPolicies of a namespace mean for the pods of sandboxes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskcell.engine.kubernetes import pod

NetworkPolicy = Mapping[str, Any]

POLICY_NAME = "taskcell-network-none"
POLICY_GROUP = "networking.k8s.io/v1"
_BOTH_WAYS = ("Ingress", "Egress")

#: What keeps pods from their network: it selects them, and lets nothing in or out.
WANTED: NetworkPolicy = {"podSelector": {"matchLabels": {pod.NETWORK: "none"}}, "policyTypes": list(_BOTH_WAYS)}


def holds(policy: NetworkPolicy) -> bool:
    """Whether the policy of POLICY_NAME is as it was made."""
    spec = policy.get("spec") or {}
    is_whole = set(_BOTH_WAYS) <= set(spec.get("policyTypes") or ())
    return is_whole and spec.get("podSelector") == WANTED["podSelector"] and not _ways_through(spec)


def opener(policies: Sequence[NetworkPolicy], labels: Mapping[str, str]) -> str:
    """The name of a policy that lets a pod with these labels reach, or be reached; empty where none does.

    Policies add up: what one of them allows, no other one takes back.
    """
    for policy in policies:
        spec = policy.get("spec") or {}
        if _ways_through(spec) and _selects(spec.get("podSelector") or {}, labels):
            return str(policy["metadata"]["name"])
    return ""


def _ways_through(spec: Mapping[str, Any]) -> list[str]:
    """The ways in which a policy lets anything through; its rules count only for the ways that it names."""
    named = spec.get("policyTypes") or _BOTH_WAYS
    return [way for way in _BOTH_WAYS if way in named and spec.get(way.lower())]


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`metav1.LabelSelector`) selects a pod. An operator that is not known does."""
    pairs = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in pairs) and all(
        _fits(term, labels) for term in selector.get("matchExpressions") or ()
    )


def _fits(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term.get("key", "")), term.get("values") or ()
    match term.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True
