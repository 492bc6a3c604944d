"""Kubernetes as an engine: a sandbox is a pod, and its channel one pods/exec."""
