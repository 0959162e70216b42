"""JobService: for the owners of jobs."""
