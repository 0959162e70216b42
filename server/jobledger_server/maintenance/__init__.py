"""Background work of the service: expires leases and deadlines, purges old jobs."""
