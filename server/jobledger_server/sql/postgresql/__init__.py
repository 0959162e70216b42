"""PostgreSQL: dialect, driver, engines and notifications."""
