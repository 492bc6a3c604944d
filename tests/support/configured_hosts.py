"""What this machine's package managers are set up to ask, found when it is asked for, and whom this machine trusts."""

from __future__ import annotations

import socket
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

from taskcell.egress.rules import is_public
from taskcell.images.package_hosts import SCRIPT, read_hosts

#: Where Debian keeps its certificates.
SYSTEM_STORE = "/etc/ssl/certs/ca-certificates.crt"
#: Seconds to ask ten programs for their configuration.
ASK_TIMEOUT = 60


def configured_hosts(reference: str) -> list[str]:
    """What this machine's and the image's package managers ask, and the private addresses that they have here."""
    own = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, timeout=ASK_TIMEOUT, check=False)
    asked = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", reference, "-c", SCRIPT],
        capture_output=True, text=True, timeout=ASK_TIMEOUT, check=False,
    )  # fmt: skip
    hosts = list(dict.fromkeys([*read_hosts(own.stdout), *read_hosts(asked.stdout)]))
    addresses = []
    for name, port in (host.rsplit(":", 1) for host in hosts):
        try:
            found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except OSError:
            continue
        plain = {str(entry[4][0]) for entry in found}
        addresses += [f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in plain if not is_public(ip_address(a))]
    return [*hosts, *addresses]


def certificates() -> str:
    """The certificates that this machine trusts; empty where there is no file of them."""
    paths = ssl.get_default_verify_paths()
    found = (Path(path) for path in (paths.cafile, paths.openssl_cafile, SYSTEM_STORE) if path)
    return next((path.read_text() for path in found if path.is_file()), "")
