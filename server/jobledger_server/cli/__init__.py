"""The command `jobledger-server`: a file for each of its commands."""
