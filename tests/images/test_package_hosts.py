"""What an image's package managers ask is read from what they print."""

from __future__ import annotations

import pytest

from taskcell.images.package_hosts import MAX_PRINTED, MOST_HOSTS, read_hosts


@pytest.mark.parametrize(
    ("printed", "hosts"),
    [
        ("", []),
        ("https://pip.example/simple\nhttps://files.example", ["pip.example:443", "files.example:443"]),
        ("deb http://deb.example/debian stable main", ["deb.example:80"]),
        ("sparse+https://crates.example:8443/index/", ["crates.example:8443"]),
        ("https://PIP.Example./a https://pip.example/b", ["pip.example:443"]),
        ("https://user:secret@pip.example/simple", ["pip.example:443"]),
        ("direct off file:///srv/mirror ftp://x.example cdrom:[x]", []),
        ("https://10.0.0.5/simple http://[::1]:3141/", []),
        ("https://bad_host!/ https://:443 https://x.example:99999/", []),
    ],
)
def test_names_of_http_addresses_are_hosts_with_ports_each_once_and_nothing_else_is(
    printed: str, hosts: list[str]
) -> None:
    assert read_hosts(printed) == hosts


def test_what_an_image_prints_is_bounded() -> None:
    assert len(read_hosts("\n".join(f"https://h{number}.example/" for number in range(1000)))) == MOST_HOSTS
    assert read_hosts(" " * MAX_PRINTED + "https://late.example/") == []
