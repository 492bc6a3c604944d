"""What an image's own package managers are set up to ask, found by asking them, and kept as the image's label."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from taskcell.destinations import Destination
from taskcell.images.engine import Announce, ImageEngine

#: The label, as `HOST:PORT` with blanks between; empty when there are none.
PACKAGES_LABEL = "taskcell.packages"
#: Prints addresses, one a line: of pip's index and its files, of pip's own configuration, of npm, yarn, go, gem, cargo
#: and apt. What an image does not have prints nothing.
SCRIPT = r"""
python3 -c 'from pip._internal.models.index import PyPI
print(PyPI.url)
print("https://" + PyPI.file_storage_domain)' 2>/dev/null
python3 -m pip config list 2>/dev/null | tr -d "'" | sed -n 's/^[^=]*index-url=//p'
npm config get registry 2>/dev/null
yarn config get registry 2>/dev/null
go env GOPROXY 2>/dev/null | tr ',|' '\n\n'
sumdb=$(go env GOSUMDB 2>/dev/null); [ -n "$sumdb" ] && [ "$sumdb" != off ] && echo "https://$sumdb"
gem sources 2>/dev/null
cat "${CARGO_HOME:-$HOME/.cargo}"/config.toml /etc/cargo/config.toml 2>/dev/null | tr '"' '\n'
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  sed 's/^ *#.*//' | tr ' \t' '\n\n'
true
"""
_PORTS = {"http": 80, "https": 443}
#: Characters of what is printed that are read, and hosts that are kept.
MAX_PRINTED, MOST_HOSTS = 1 << 16, 32


def read_hosts(printed: str) -> list[str]:
    """Return `HOST:PORT` of each address of HTTP in what the script printed, each once, in order."""
    return list(dict.fromkeys(_hosts(printed[:MAX_PRINTED])))[:MOST_HOSTS]


def _hosts(printed: str) -> Iterator[str]:
    for word in printed.split():
        try:
            parts = urlsplit(word.removeprefix("sparse+"))
            default = _PORTS.get(parts.scheme)
            if default is not None and parts.hostname:
                to = Destination.read(parts.hostname, parts.port or default)
                if to.address is None:
                    yield str(to)
        except ValueError:
            continue


async def label_packages(engine: ImageEngine, reference: str, report: Announce) -> None:
    """Write into an image what its package managers ask, unless it says just that already. Raises EngineError."""
    labels = await engine.image_labels(reference)
    hosts = read_hosts(await engine.image_output(reference, SCRIPT))
    label = " ".join(hosts)
    if labels is not None and labels.get(PACKAGES_LABEL) == label:
        return
    await engine.build_image(f'FROM {reference}\nLABEL {PACKAGES_LABEL}="{label}"\n', reference, lambda _: None)
    report(f"Its package managers ask {len(hosts)} hosts, which '@packages' in 'egress' stands for.")
