"""An agent of OpenHands repairs a program in a sandbox, by the tools that every MCP client has.

    pip install openhands-sdk         # in an environment of its own: see docs/frameworks.md
    python examples/open_hands_mcp.py --program /path/to/taskcell [--config FILE]

OpenHands' model for tests stands for a model: it answers with the steps below, so that this runs without a key.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile

from openhands.sdk import Agent, Conversation
from openhands.sdk.event import ObservationEvent
from openhands.sdk.llm import Message, MessageToolCall, TextContent
from openhands.sdk.testing import TestLLM

PROGRAM = "def double(n):\n    return n + n + 1\n"
STEPS = (
    ("write_file", {"path": "double.py", "content": PROGRAM}),
    ("edit_file", {"path": "double.py", "old": " + 1", "new": ""}),
    ("terminal", {"command": "python3 -c 'import double; print(double.double(4))'"}),
)


def calling(tool: str, arguments: dict[str, str]) -> Message:
    call = MessageToolCall(id=tool, name=tool, arguments=json.dumps(arguments), origin="completion")
    return Message(role="assistant", content=[TextContent(text="")], tool_calls=[call])


def main() -> int:
    parser = argparse.ArgumentParser(description="Repair a program in a sandbox.")
    parser.add_argument("--program", default="taskcell", help="the server's command")
    parser.add_argument("--config", help="the server's configuration")
    known = parser.parse_args()
    words = ["serve", *(["--config", known.config] if known.config else [])]
    server = {"command": known.program, "args": words, "env": dict(os.environ)}
    end = Message(role="assistant", content=[TextContent(text="It is repaired.")])
    model = TestLLM.from_messages([*(calling(tool, about) for tool, about in STEPS), end])
    agent = Agent(llm=model, tools=[], mcp_config={"taskcell": server})
    observed: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, ObservationEvent):
            observed.append("\n".join(getattr(part, "text", "") for part in event.observation.to_llm_content))

    with tempfile.TemporaryDirectory() as empty:
        conversation = Conversation(agent=agent, workspace=empty, visualizer=None, callbacks=[note])
        conversation.send_message("double(4) is 9. Repair it.")
        conversation.run()
        conversation.close()
    print(*observed, sep="\n")  # noqa: T201
    return 0 if len(observed) == len(STEPS) and "8" in observed[-1].splitlines() else 1


if __name__ == "__main__":
    sys.exit(main())
