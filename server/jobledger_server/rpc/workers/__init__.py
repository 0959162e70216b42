"""WorkerService: for the workers that run jobs."""
