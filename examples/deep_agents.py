"""A deep agent of LangChain repairs a program in a sandbox of its own.

    pip install 'taskcell[deepagents]'
    python examples/deep_agents.py [--config FILE]

LangChain's model for tests stands for a model: it answers with the steps below, so that this runs without a key.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deepagents import create_deep_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from taskcell.integrations.deep_agents import TaskcellBackend

FILE = "/workspace/double.py"
PROGRAM = "def double(n):\n    return n + n + 1\n"
STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("execute", {"command": "python3 -c 'import double; assert double.double(4) == 8'"}),
    ("edit_file", {"file_path": FILE, "old_string": " + 1", "new_string": ""}),
    ("execute", {"command": "python3 -c 'import double; print(double.double(4))'"}),
)


class StepsModel(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self


def main() -> int:
    parser = argparse.ArgumentParser(description="Repair a program in a sandbox.")
    parser.add_argument("--config", help="the server's configuration")
    calls = [AIMessage("", tool_calls=[{"name": name, "args": about, "id": name}]) for name, about in STEPS]
    with TaskcellBackend(config=parser.parse_args().config) as backend:
        backend.write(FILE, PROGRAM)
        model = StepsModel(messages=iter([*calls, AIMessage("It is repaired.")]))
        agent = create_deep_agent(model=model, backend=backend)
        found = agent.invoke({"messages": [{"role": "user", "content": "double(4) is 9. Repair it."}]})
        after = backend.execute("python3 -c 'import double; print(double.double(4))'")
    for message in found["messages"]:
        print(f"{message.type}: {message.text or message.tool_calls}")  # noqa: T201
    return 0 if after.output == "8\n" else 1


if __name__ == "__main__":
    sys.exit(main())
