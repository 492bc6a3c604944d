"""An agent of mini-swe-agent repairs a program in a sandbox of its own.

    pip install 'taskcell[mini-swe-agent]'
    python examples/mini_swe_agent.py [--config FILE]

mini-swe-agent's model for tests stands for a model: it answers with the steps below, so that this runs without a key.
"""

from __future__ import annotations

import argparse
import sys

from minisweagent.agents.default import DefaultAgent
from minisweagent.models.test_models import DeterministicModel, make_output

from taskcell.integrations.mini_swe_agent import TaskcellEnvironment

STEPS = (
    "printf 'def double(n):\\n    return n + n + 1\\n' > double.py",
    "python3 -c 'import double; assert double.double(4) == 8'",
    "sed -i 's/ + 1$//' double.py",
    "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; python3 -c 'import double; print(double.double(4))'",
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Repair a program in a sandbox.")
    parser.add_argument("--config", help="the server's configuration")
    environment = TaskcellEnvironment(config=parser.parse_args().config)
    try:
        agent = DefaultAgent(
            DeterministicModel(outputs=[make_output("", [{"command": step}]) for step in STEPS]),
            environment,
            system_template="You work in {{ cwd }} of a sandbox.",
            instance_template="{{ task }}",
            cost_limit=0,
        )
        result = agent.run("double(4) is 9. Repair it.")
    finally:
        environment.cleanup()
    for message in agent.messages:
        print(message["content"])  # noqa: T201
    return 0 if result == {"exit_status": "Submitted", "submission": "8\n"} else 1


if __name__ == "__main__":
    sys.exit(main())
