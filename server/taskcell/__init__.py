"""taskcell: every task of an LLM agent gets its own hardened container, over MCP."""

__version__ = "0.1.0"
