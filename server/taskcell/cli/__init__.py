"""The command line: one file a command, and no decision that another layer could make."""
