"""The gRPC server: its options, handlers and draining, and what every call goes through."""
