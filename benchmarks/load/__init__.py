"""The programs that make load."""
