"""All of MCP: only this package knows the protocol between client and server."""
