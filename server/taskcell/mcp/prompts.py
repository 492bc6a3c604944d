"""Prompts that a person picks in a client: to begin a piece of work, and to look at what one has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from taskcell.model import DEFAULT_TASK
from taskcell.schema.properties import MAX_TASK_ID
from taskcell.text import shown

Context = ServerRequestContext[Any, Any]
#: Characters of one argument. A prompt goes to a model whole.
MAX_ARGUMENT_CHARS = 20_000

_TASK = PromptArgument(
    name="task_id", description=f"Name of the task; tasks share no files. Default: {DEFAULT_TASK}.", required=False
)


@dataclass(frozen=True, slots=True)
class _Template:
    """A prompt and its text, with the names of its arguments in braces."""

    prompt: Prompt
    text: str


_TEMPLATES = {
    template.prompt.name: template
    for template in (
        _Template(
            Prompt(
                name="start-task",
                title="Start a task",
                description="Do a piece of work in a container of its own, and check the result.",
                arguments=[PromptArgument(name="goal", description="What is to be done.", required=True), _TASK],
            ),
            "Do this in a container of its own, by the tools of taskcell with the task_id {task_id}:\n\n{goal}\n\n"
            "Look at the workspace first (`list_files`), and at which programs are there before you rely on one. "
            "Work in small steps, run what you write, and read the output. At the end, say what you did, which files "
            "hold the result, how you checked it, and what is still open.",
        ),
        _Template(
            Prompt(
                name="review-task",
                title="Review a task",
                description="Look at what was done in a task, without changing anything.",
                arguments=[_TASK],
            ),
            "Review what was done in the task {task_id} of taskcell, and change nothing. Use `sandbox` with the action "
            "`status`, `process` with the action `list` and then `poll` for the commands that matter, `list_files`, "
            "and `read_file` for the files that were changed last. Then report: what was done, in order; what the "
            "result is and where it lies; which commands failed, or still run; what looks wrong, unsafe or unfinished; "
            "and what you would do next.",
        ),
    )
}


async def list_prompts(context: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
    """Handle `prompts/list`: all on one page."""
    return ListPromptsResult(prompts=[template.prompt for template in _TEMPLATES.values()])


async def get_prompt(context: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """Handle `prompts/get`. A wrong name or argument is a protocol error with a sentence."""
    template = _TEMPLATES.get(params.name)
    if template is None:
        raise _refused(f"There is no prompt {shown(params.name, 64)}; there are {', '.join(_TEMPLATES)}.")
    values = {name: value.strip() for name, value in (params.arguments or {}).items() if value.strip()}
    arguments = {argument.name: argument for argument in template.prompt.arguments or ()}
    for name, value in values.items():
        if name not in arguments:
            raise _refused(f"The prompt '{params.name}' has no argument {shown(name, 64)}.")
        most = MAX_TASK_ID if name == "task_id" else MAX_ARGUMENT_CHARS
        if len(value) > most:
            raise _refused(f"'{name}' is longer than {most} characters; shorten it.")
    missing = [name for name, argument in arguments.items() if argument.required and name not in values]
    if missing:
        raise _refused(f"The prompt '{params.name}' needs the argument '{missing[0]}'.")
    text = template.text.format(**{"task_id": f"`{DEFAULT_TASK}`"} | {
        name: f"`{value}`" if name == "task_id" else value for name, value in values.items()
    })  # fmt: skip
    message = PromptMessage(role="user", content=TextContent(type="text", text=text))
    return GetPromptResult(description=template.prompt.description, messages=[message])


def _refused(sentence: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=sentence)
