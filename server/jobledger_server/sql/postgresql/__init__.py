"""PostgreSQL: its dialect, its driver and its notifications."""
