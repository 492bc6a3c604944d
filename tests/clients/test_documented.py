"""The table of clients in the documents is the catalog."""

from __future__ import annotations

import re
from pathlib import Path

from taskcell.clients.catalog import CLIENTS, Places

PAGE = (Path(__file__).parent.parent.parent / "docs" / "clients.md").read_text()


def test_the_page_has_each_client_with_its_files_its_key_and_its_time_out() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(CLIENTS)
    for name, title, linux, macos, key, patience in rows:
        client = CLIENTS[name.strip("`")]
        files = {
            platform: "~/" + client.file(Places({"HOME": "/home/ada"}, platform)).relative_to("/home/ada").as_posix()
            for platform in ("linux", "darwin")
        }
        assert (title, linux.strip("`"), key.strip("`")) == (client.title, files["linux"], client.servers)
        assert macos.strip("`") == ("the same" if files["linux"] == files["darwin"] else files["darwin"])
        seconds = re.match(r"(\d+) s|hours", patience)
        assert seconds is not None
        assert client.call_timeout == (float(seconds[1]) if seconds[1] else None)
