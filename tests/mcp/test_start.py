"""What a server imports before it answers its client's first request: not what only later requests need."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from raw_client import RawClient, command

TOML = 'manifests = []\n[engine]\nkind = "local"\n'
#: Packages that take long to import and that the first answer does not need.
HEAVY = {"jsonschema", "referencing", "docker", "requests", "tomlkit", "ruamel"}
IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s+(\w+)")


def test_the_first_answer_waits_for_no_package_that_later_requests_need(tmp_path: Path) -> None:
    _, *words = command(tmp_path, TOML)
    client = RawClient([sys.executable, "-X", "importtime", *words], tmp_path)
    try:
        client.shake_hands()
        before = set(IMPORTED.findall(client.log.read_text()))
        assert client.run_command("echo works")["isError"] is False
        after = set(IMPORTED.findall(client.log.read_text()))
    finally:
        client.end_input()
        assert client.exit_code() == 0
    assert "taskcell" in before
    assert before & HEAVY == set()
    # The same look finds what is imported later.
    assert "jsonschema" in after
