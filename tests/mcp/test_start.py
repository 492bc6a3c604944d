"""What a server imports before it answers its client's first request: not what only later requests need."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from raw_client import RawClient, command

#: Nothing listens at the port of the second: the engine is away, and a call says so.
TOML = {
    "local": 'manifests = []\n[engine]\nkind = "local"\n',
    "docker": 'manifests = []\n[engine]\nkind = "docker"\nhost = "tcp://127.0.0.1:1"\n',
}
#: Packages that take long to import and that the first answer does not need.
HEAVY = {"jsonschema", "referencing", "docker", "requests", "urllib3", "tomlkit", "ruamel"}
IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s+(\w+)")


@pytest.mark.parametrize(
    ("kind", "later"), [("local", {"jsonschema"}), ("docker", {"jsonschema", "docker", "urllib3"})]
)
def test_the_first_answer_waits_for_no_package_that_later_requests_need(
    tmp_path: Path, kind: str, later: set[str]
) -> None:
    _, *words = command(tmp_path, TOML[kind])
    client = RawClient([sys.executable, "-X", "importtime", *words], tmp_path)
    try:
        client.shake_hands()
        before = set(IMPORTED.findall(client.log.read_text()))
        called = client.run_command("echo works")
        after = set(IMPORTED.findall(client.log.read_text()))
    finally:
        client.end_input()
        assert client.exit_code() == 0
    assert called["isError"] is (kind == "docker")
    assert ("No container engine answers at tcp://127.0.0.1:1" in str(called)) is (kind == "docker")
    assert "taskcell" in before
    assert before & HEAVY == set()
    # The same look finds what is imported later.
    assert later <= after
