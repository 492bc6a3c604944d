"""The methods of MCP that are served, and the models of their parameters: all that must be known to answer a client's
first request."""

from __future__ import annotations

from collections.abc import Mapping

from mcp_types import (
    CallToolRequestParams,
    CompleteRequestParams,
    GetPromptRequestParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    RequestParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
)

#: The tasks extension (SEP-2663).
EXTENSION = "io.modelcontextprotocol/tasks"


class TaskParams(RequestParams):
    """Parameters of the extension's methods. `inputResponses` of `tasks/update` are ignored: no task asks."""

    task_id: str


#: Every request that is served beside the handshake, `server/discover` and `ping`, which the SDK answers.
REQUESTS: Mapping[str, type[RequestParams]] = {
    "tools/list": PaginatedRequestParams,
    "tools/call": CallToolRequestParams,
    "resources/list": PaginatedRequestParams,
    "resources/templates/list": PaginatedRequestParams,
    "resources/read": ReadResourceRequestParams,
    "resources/subscribe": SubscribeRequestParams,
    "resources/unsubscribe": UnsubscribeRequestParams,
    "subscriptions/listen": SubscriptionsListenRequestParams,
    "prompts/list": PaginatedRequestParams,
    "prompts/get": GetPromptRequestParams,
    "completion/complete": CompleteRequestParams,
    "logging/setLevel": SetLevelRequestParams,
    "tasks/get": TaskParams,
    "tasks/update": TaskParams,
    "tasks/cancel": TaskParams,
}
INITIALIZED = "notifications/initialized"
