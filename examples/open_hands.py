"""A conversation of OpenHands whose agent works in a sandbox, with OpenHands' own tools.

    pip install 'taskcell-client[openhands]'    # from a checkout: see docs/frameworks.md
    python examples/open_hands.py --program /path/to/taskcell --environment openhands [--config FILE]

The environment's image has OpenHands' agent server. A program in the sandbox stands for a model: it answers with the
steps below, so that this runs without a key.
"""

from __future__ import annotations

import argparse
import json
import sys

from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.sdk.event import ObservationEvent
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.terminal import TerminalTool
from pydantic import SecretStr

from taskcell.integrations.open_hands import TaskcellWorkspace

FILE = "/workspace/double.py"
STEPS = (
    ("file_editor", {"command": "create", "path": FILE, "file_text": "def double(n):\n    return n + n + 1\n"}),
    ("file_editor", {"command": "str_replace", "path": FILE, "old_str": " + 1", "new_str": ""}),
    ("terminal", {"command": "cd /workspace && python3 -c 'import double; print(double.double(4))'"}),
    ("finish", {"message": "It is repaired."}),
)
#: Answers each question of an agent with the next step, as a server of OpenAI's form.
MODEL = """\
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STEPS = json.loads(sys.argv[1])

class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        done = sum(message["role"] == "tool" for message in asked["messages"])
        name, arguments = STEPS[min(done, len(STEPS) - 1)]
        call = {"name": name, "arguments": json.dumps(arguments)}
        message = {"role": "assistant", "content": None,
                   "tool_calls": [{"id": f"call_{done}", "type": "function", "function": call}]}
        answer = {"id": "scripted", "object": "chat.completion", "created": 0, "model": "scripted",
                  "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
                  "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

ThreadingHTTPServer(("127.0.0.1", 8100), Model).serve_forever()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Repair a program in a sandbox.")
    parser.add_argument("--program", help="the server's command")
    parser.add_argument("--environment", default="openhands", help="of the server's configuration")
    parser.add_argument("--config", help="the server's configuration")
    known = parser.parse_args()
    about = {"program": known.program, "environment": known.environment, "config": known.config}
    observed: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, ObservationEvent):
            observed.append("\n".join(getattr(part, "text", "") for part in event.observation.to_llm_content))

    with TaskcellWorkspace(**about) as workspace, workspace.task.start(["python3", "-c", MODEL, json.dumps(STEPS)]):
        model = LLM(model="openai/scripted", base_url="http://127.0.0.1:8100/v1", api_key=SecretStr("none"))
        agent = Agent(llm=model, tools=[Tool(name=FileEditorTool.name), Tool(name=TerminalTool.name)])
        conversation = Conversation(agent=agent, workspace=workspace, visualizer=None, callbacks=[note])
        try:
            conversation.send_message("double(4) is 9. Repair it.")
            conversation.run()
        finally:
            conversation.close()
        is_repaired = workspace.execute_command(f"cat {FILE}").stdout.endswith("n + n\n")
    print(*observed, sep="\n")  # noqa: T201
    return 0 if is_repaired and any("8" in text.split() for text in observed) else 1


if __name__ == "__main__":
    sys.exit(main())
