"""MCP, and nothing else: only this package knows the protocol between the client and the server."""
