"""What is measured beside the service: the same stack, doing nothing."""
