"""An evaluation of Inspect whose samples each have a sandbox.

    pip install 'taskcell[inspect]'
    python examples/inspect_sandbox.py [--config FILE]

The solver stands for a model: it repairs a file of its sample by commands, so that this runs without a key.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import SandboxEnvironmentSpec, sandbox

from taskcell.integrations.inspect_sandbox import TaskcellSandboxConfig

PROGRAM = "def double(n):\n    return n + n + 1\n"
SAMPLES = {"4": "8", "0": "0", "-1": "-2"}


@solver
def repair() -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        await sandbox().exec(["sed", "-i", "s/ + 1$//", "double.py"])
        return state

    return solve


@scorer(metrics=[accuracy()])
def doubles() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        line = f"import double; print(double.double({state.input_text}))"
        result = await sandbox().exec(["python3", "-c", line], timeout=60)
        return Score(value=float(result.stdout.strip() == target.text), answer=result.stdout)

    return score


def main() -> int:
    parser = argparse.ArgumentParser(description="Evaluate with a sandbox for each sample.")
    parser.add_argument("--config", help="the server's configuration")
    task = Task(
        dataset=[Sample(input=given, target=wanted, files={"double.py": PROGRAM}) for given, wanted in SAMPLES.items()],
        solver=repair(),
        scorer=doubles(),
        sandbox=SandboxEnvironmentSpec("taskcell", TaskcellSandboxConfig(config=parser.parse_args().config)),
    )
    with tempfile.TemporaryDirectory() as logs:
        [log] = eval(task, model="mockllm/model", log_dir=logs, display="plain")
    found = log.results.scores[0].metrics["accuracy"].value if log.results else 0.0
    print(f"{log.status}: {found:g} of the samples are repaired")  # noqa: T201
    return 0 if found == 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
