"""`completion/complete`: a caller's own tasks, processes and files, for the variables of templates and prompts."""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp_types import CompleteRequestParams, CompleteResult, Completion, ResourceTemplateReference

from taskcell.gateway.gateway import Gateway
from taskcell.mcp.principal import caller_of
from taskcell.mcp.resources.routes import LISTING_TIMEOUT, Resources
from taskcell.model import DEFAULT_TASK, TaskKey
from taskcell.pool.slot import opened as opened_tasks

#: Values of one answer: the specification's own bound.
MAX_VALUES = 100
TASK_VARIABLE = "task_id"


class Completions:
    """Completes from what the caller's open sandboxes have. It starts no sandbox."""

    def __init__(self, gateway: Gateway, resources: Resources) -> None:
        self._gateway = gateway
        self._resources = resources

    async def complete(self, context: ServerRequestContext[Any, Any], params: CompleteRequestParams) -> CompleteResult:
        """Handle `completion/complete`: the newest first; nothing for what cannot be completed."""
        caller, begun = caller_of(context), params.argument.value
        opened = opened_tasks(self._gateway.pool.slots, caller.principal)
        values: list[str] = []
        if params.argument.name == TASK_VARIABLE:
            values = [task.task for task in opened if task.task.startswith(begun)]
        elif isinstance(params.ref, ResourceTemplateReference):
            given = (params.context.arguments if params.context is not None else None) or {}
            task = TaskKey(caller.principal, given.get(TASK_VARIABLE, DEFAULT_TASK))
            with anyio.move_on_after(LISTING_TIMEOUT):
                for route in self._resources.readable(caller):
                    mine = params.ref.uri in [template.uri_template for template in route.templates]
                    if mine and route.variable == params.argument.name and task in opened:
                        values += await route.complete(task, opened[task], begun)
        shown = values[:MAX_VALUES]
        return CompleteResult(completion=Completion(values=shown, total=len(values), has_more=len(values) > len(shown)))
