"""A program is repaired in a session of SWE-ReX, whose deployment is a task.

    pip install 'taskcell[swe-rex]'
    python examples/swe_rex.py [--config FILE]

The steps stand for what an agent would do, so that this runs without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from swerex.runtime.abstract import BashAction, CreateBashSessionRequest, WriteFileRequest

from taskcell.integrations.swe_rex import TaskcellDeployment

PROGRAM = "def double(n):\n    return n + n + 1\n"
STEPS = (
    "python3 -c 'import double; print(double.double(4))'",
    "sed -i 's/ + 1$//' double.py",
    "python3 -c 'import double; print(double.double(4))'",
)


async def repair(config: str | None) -> str:
    deployment = TaskcellDeployment(config=config)
    await deployment.start()
    try:
        runtime = deployment.runtime
        await runtime.write_file(WriteFileRequest(path="/workspace/double.py", content=PROGRAM))
        await runtime.create_session(CreateBashSessionRequest())
        found = ""
        for step in STEPS:
            found = (await runtime.run_in_session(BashAction(command=step, timeout=60))).output
            print(f"$ {step}\n{found}", end="")  # noqa: T201
        return found
    finally:
        await deployment.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Repair a program in a sandbox.")
    parser.add_argument("--config", help="the server's configuration")
    return 0 if asyncio.run(repair(parser.parse_args().config)) == "8\n" else 1


if __name__ == "__main__":
    sys.exit(main())
