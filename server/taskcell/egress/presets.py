"""What `egress` names: patterns, and groups of them from the configuration or an image's label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taskcell.destinations import ANY, Pattern, address_of
from taskcell.images.package_hosts import PACKAGES_LABEL

#: The group that an image may name: what its package managers ask.
PACKAGES = "packages"
#: Characters of a label, and hosts in it, that are read: there are a handful of package managers.
MAX_LABEL, MAX_HOSTS = 4096, 32


def patterns_of(
    entries: Iterable[str], presets: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]
) -> tuple[Pattern, ...]:
    """Return the patterns that a profile's `egress` stands for.

    A group that nobody has named stands for nothing. The operator's own `packages` goes before the image's.

    Arguments:
        presets: `[egress.presets]`.
        labels: the image's.
    """
    found: list[Pattern] = []
    for entry in entries:
        name = entry.removeprefix("@")
        if name == entry:
            found.append(Pattern.read(entry))
        elif name in presets:
            found += map(Pattern.read, presets[name])
        elif name == PACKAGES:
            found += from_label(labels.get(PACKAGES_LABEL, ""))
    return tuple(dict.fromkeys(found))


def from_label(label: str) -> list[Pattern]:
    """Read a label. An image is not the operator: what is not the plain name of one host is left out."""
    found = []
    for word in label[:MAX_LABEL].split()[:MAX_HOSTS]:
        try:
            pattern = Pattern.read(word)
        except ValueError:
            continue
        if not pattern.host.startswith(ANY) and address_of(pattern.host) is None:
            found.append(pattern)
    return found
