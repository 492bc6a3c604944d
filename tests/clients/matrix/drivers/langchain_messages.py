"""A model for LangChain's agents that makes given calls, and what such an agent shows it of their results."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from probe import Seen


class FakeModel(BaseChatModel):
    """Makes one call after the other, then says that it has done."""

    calls: list[tuple[str, dict[str, Any]]]

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, **options: Any) -> FakeModel:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **options: Any) -> ChatResult:
        turn = sum(isinstance(message, ToolMessage) for message in messages)
        made: list[Any] = []
        if turn < len(self.calls):
            name, arguments = self.calls[turn]
            made = [{"name": name, "args": arguments, "id": f"call-{turn}"}]
        answer = AIMessage("" if made else "Done.", tool_calls=made)
        return ChatResult(generations=[ChatGeneration(message=answer)])


def seen_of(messages: list[BaseMessage]) -> list[Seen]:
    return [_seen(message) for message in messages if isinstance(message, ToolMessage)]


def _seen(message: ToolMessage) -> Seen:
    blocks = message.content if isinstance(message.content, list) else [message.content]
    text = "\n".join(block if isinstance(block, str) else block.get("text", "") for block in blocks)
    pictures = sum(isinstance(block, dict) and block.get("type") in ("image", "image_url") for block in blocks)
    artifact = message.artifact if isinstance(message.artifact, dict) else {}
    return Seen(text, pictures, artifact.get("structured_content"))
