"""Delivers webhooks: watches for the service's webhooks, and posts what happens to receivers."""
