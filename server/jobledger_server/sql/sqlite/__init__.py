"""SQLite: its dialect, its driver and the lock on its file."""
