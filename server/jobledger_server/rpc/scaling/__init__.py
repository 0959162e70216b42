"""ExternalScaler: scales workers by the jobs that there are."""
