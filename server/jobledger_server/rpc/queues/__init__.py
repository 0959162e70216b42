"""QueueService, for operators: counts, pauses, limits, and why a job waits."""
