"""One server for all sandboxes of a framework's process."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client_serving import LOCAL_ENGINE
from observe import eventually
from taskcell.client.blocking import connect
from taskcell.client.failures import CellError
from taskcell.integrations.shared_server import shared_server

#: Seconds for a process that starts a server and ends, on a busy machine.
PATIENCE = 120
ENDS = """
import sys
from taskcell.integrations.shared_server import shared_server
print(shared_server(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "taskcell.toml"
    path.write_text(LOCAL_ENGINE)
    return path


def test_threads_that_ask_at_once_share_a_server_that_works(config: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        (door,) = set(threads.map(lambda _: shared_server(config), range(4)))
    with connect(door=door) as cell:
        assert cell.task("one").run(["echo", "here"]).stdout == b"here\n"


def test_it_ends_with_its_process(config: Path) -> None:
    words = [sys.executable, "-c", ENDS, str(config)]
    door = Path(subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip())
    assert door.name
    assert eventually(lambda: not door.exists())


def test_a_configuration_that_is_wrong_is_an_error_and_may_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "taskcell.toml"
    path.write_text("not_a_key = 1\n")
    with pytest.raises(CellError, match="not_a_key"):
        shared_server(path)
    path.write_text(LOCAL_ENGINE)
    assert shared_server(path)
