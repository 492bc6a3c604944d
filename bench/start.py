"""Measure how long a server takes from its process's start to its answer to `initialize`, and what that time goes to.

    start.py [--modules N]     N: the slowest imports that are shown (default 15)

The measure is what importing the SDK's low-level server takes: no server with this SDK can be quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Runs of each; the fastest half counts, for other programs only make it slower.
RUNS = 9
#: Seconds for one run on a busy machine.
PATIENCE = 60.0

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "start", "version": "1"}},
}
SDK = "import mcp.server.lowlevel.server, anyio"
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s*)(\S+)")


def server(folder: Path, *options: str) -> tuple[float, str]:
    """Return the seconds until a server has answered, and what it wrote to standard error."""
    environ = {**os.environ, "XDG_STATE_HOME": str(folder)}
    began = time.perf_counter()
    # A file: a pipe that nobody reads would stop a server that says much.
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, *options, "-m", "taskcell", "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, env=environ, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(INITIALIZE) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        took = time.perf_counter() - began
        assert answer["result"]["serverInfo"]["name"] == "taskcell"
        process.communicate(timeout=PATIENCE)
    return took, (folder / "log").read_text()


def imports(line: str) -> float:
    """Return the seconds of an interpreter that does nothing but this."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", line], check=True, timeout=PATIENCE)
    return time.perf_counter() - began


def middle_of_the_fastest(seconds: list[float]) -> float:
    return statistics.median(sorted(seconds)[: len(seconds) // 2 + 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=int, default=15)
    wanted = parser.parse_args().modules
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, sdk, whole = [], [], []
        for _ in range(RUNS):
            bare.append(imports("pass"))
            sdk.append(imports(SDK))
            whole.append(server(folder)[0])
        _, said = server(folder, "-X", "importtime")
    least, ours = middle_of_the_fastest(sdk), middle_of_the_fastest(whole)
    print(f"interpreter alone {middle_of_the_fastest(bare) * 1000:6.0f} ms")
    print(f"importing the SDK {least * 1000:6.0f} ms")
    print(f"initialize        {ours * 1000:6.0f} ms, {ours / least:.2f} times the SDK")
    found = sorted(((int(own), name) for own, _, _, name in _IMPORT.findall(said)), reverse=True)
    print(f"\nThe slowest of {len(found)} imports by themselves:")
    for own, name in found[:wanted]:
        print(f"{own / 1000:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
