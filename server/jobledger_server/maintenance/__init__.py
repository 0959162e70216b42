"""What the service does by itself: expires leases and deadlines, purges old jobs."""
