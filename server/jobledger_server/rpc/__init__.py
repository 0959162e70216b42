"""The gRPC edge: requests to commands, outcomes to messages, errors to statuses."""
