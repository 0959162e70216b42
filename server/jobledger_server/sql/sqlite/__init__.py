"""SQLite: dialect, driver and engines."""
