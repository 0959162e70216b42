"""Jobledger, a gRPC job-state service: the server."""
