"""SQLite: dialect, driver, engines and lock file."""
