"""What the client is built on: calls, watches, typed objects."""
