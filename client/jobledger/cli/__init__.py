"""The command line: `jobledger`. Needs the extra `cli`."""
