"""What a worker and the service say to each other: a stream of Work, and the jobs on it."""
