"""One spelling for each host, and what patterns match."""

# ruff: noqa: RUF001, RUF100

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.destinations import Destination, Pattern, read_host
from taskcell.egress.presets import patterns_of
from taskcell.egress.rules import NotConnected, Rules, is_public


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Git.Example.ORG", "git.example.org"),
        ("git.example.org.", "git.example.org"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("München.example", "xn--mnchen-3ya.example"),
        ("XN--MNCHEN-3YA.example.", "xn--mnchen-3ya.example"),
        ("ｇｉｔ．example", "git.example"),
        ("git。example", "git.example"),
        ("_srv.example", "_srv.example"),
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4.", "1.2.3.4"),
        ("１.2.3.4", "1.2.3.4"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("[::FFFF:0a00:5]", "10.0.0.5"),
    ],
)
def test_a_host_has_one_spelling(text: str, host: str) -> None:
    assert read_host(text) == host
    assert read_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "-a.b", "a-.b", "a b", "a\tb", "a\nb", "a\0b", "a/b", "a\\b", "a?b", "a#b"),
        *("git%2eexample.org", "user@git.example.org", "git.example.org@10.0.0.1", "user:pw@git.example.org"),
        *("2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "017700000001", "0177.0.0.1", "127.0.0.01"),
        *("1.2.3.4.5", "256.1.1.1", "1.2.3.", "git.example.0x10", "git.example.08", "٣.example.٣", "0x.0x"),
        *("[::1", "::1]", "[1.2.3.4]x", "fe80::1%eth0", "[fe80::1%25lo]", "::ffff:1.2.3", ":::", "1:2:3", "[]"),
        *("example.0x", "a%2eb", "a" * 64 + ".b", "a." * 127 + "bc", "\u200b.b", "a\u202eb"),
    ],
)  # fmt: skip
def test_what_is_no_plain_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        read_host(text)


@given(st.text(max_size=40))
def test_any_text_has_one_spelling_or_none(text: str) -> None:
    try:
        host = read_host(text)
    except ValueError:
        return
    assert read_host(host) == host
    assert host.isascii()
    assert host == host.lower()


@pytest.mark.parametrize(
    ("pattern", "host", "port", "matches"),
    [
        ("git.example.org", "git.example.org", 443, True),
        ("git.example.org", "git.example.org", 22, True),
        ("GIT.example.org.:443", "git.example.org", 443, True),
        ("git.example.org:443", "git.example.org", 80, False),
        ("git.example.org", "agit.example.org", 443, False),
        ("git.example.org", "git.example.org.evil.test", 443, False),
        ("*.example.org", "git.example.org", 443, True),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "evilexample.org", 443, False),
        ("*:443", "git.example.org", 443, True),
        ("*:443", "git.example.org", 22, False),
        ("10.0.0.5:5432", "10.0.0.5", 5432, True),
        ("[fd00::1]:80", "fd00:0::1", 80, True),
        ("fd00::1", "fd00::1", 9, True),
    ],
)
def test_a_pattern_matches_hosts_and_ports(pattern: str, host: str, port: int, matches: bool) -> None:
    assert Pattern.read(pattern).matches(Destination.read(host, port)) is matches


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*.",
        "git.*",
        "*git.example.org",
        "**",
        "*.*.b",
        "a:",
        "a:0",
        "a:65536",
        "a:x",
        "*.10.0.0.1",
        "*.1.2.3.4:80",
        "a/24",
    ],
)
def test_a_pattern_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        Pattern.read(text)


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        ("*", "*", True),
        ("*", "git.example.org:22", True),
        ("*:443", "git.example.org", False),
        ("*:443", "git.example.org:443", True),
        ("*.example.org", "*.git.example.org", True),
        ("*.git.example.org", "*.example.org", False),
        ("*.example.org", "*", False),
        ("*", "10.0.0.5", False),
        ("10.0.0.5", "10.0.0.5:80", True),
        ("10.0.0.5:80", "10.0.0.5", False),
        ("*", "8.8.8.8:53", False),
    ],
)
def test_a_pattern_covers_what_it_matches_and_addresses_by_themselves_alone(one: str, other: str, covers: bool) -> None:
    assert Pattern.read(one).covers(Pattern.read(other)) is covers


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "192.88.99.1", "192.0.2.1", "::", "::1", "::7f00:1", "fe80::1", "fc00::1", "::2"),
        *("ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::1"),
        *("2002:a00:1::1", "2001:0:1::1", "2001:db8::1", "fec0::1", "fd00:ec2::254"),
    ],
)  # fmt: skip
def test_what_is_not_everybodys_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_what_is_everybodys_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def rules(*patterns: str) -> Rules:
    return Rules(tuple(map(Pattern.read, patterns)))


def test_of_a_names_addresses_only_the_public_and_the_named_ones_are_left() -> None:
    found = [ip_address(address) for address in ("10.0.0.5", "1.1.1.1", "::ffff:10.0.0.6", "fd00::1")]
    to = Destination("git.example.org", 443)
    assert rules("git.example.org").judged(to, found) == [ip_address("1.1.1.1")]
    named = rules("git.example.org", "10.0.0.5:443", "10.0.0.6", "[fd00::1]:80")
    assert named.judged(to, found) == [ip_address(address) for address in ("10.0.0.5", "1.1.1.1", "::ffff:10.0.0.6")]
    with pytest.raises(NotConnected, match="not a public one"):
        rules("git.example.org").judged(to, found[:1])


def test_no_pattern_but_itself_reaches_an_address_that_is_not_public() -> None:
    for pattern in ("*", "*:80", "*.0.0.5.example"):
        with pytest.raises(NotConnected):
            rules(pattern).judge(Destination("10.0.0.5", 80))
    rules("*").judge(Destination("1.1.1.1", 80))
    rules("10.0.0.5").judge(Destination("10.0.0.5", 80))


def test_groups_come_from_the_operator_and_else_from_the_images_label() -> None:
    labels = {"taskcell.packages": "index.test:443 *.test 10.0.0.5 ::1 files.test bad/name * [fd00::1]:80"}
    found = [str(pattern) for pattern in patterns_of(["@packages", "git.test"], {}, labels)]
    assert found == ["index.test:443", "files.test", "git.test"]
    presets = {"packages": ("mirror.test",), "ours": ("10.0.0.5:80",)}
    assert [str(pattern) for pattern in patterns_of(["@packages", "@ours"], presets, labels)] == [
        "mirror.test",
        "10.0.0.5:80",
    ]
    assert patterns_of(["@packages"], {}, {}) == ()
    assert len(patterns_of(["@packages"], {}, {"taskcell.packages": "a.test " * 9999})) == 1
