"""The command line: one file for each command, and no decision that another layer could make."""
