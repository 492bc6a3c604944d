"""Adapters for agent frameworks, each an extra of the package. See docs/frameworks.md."""
