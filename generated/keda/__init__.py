"""KEDA's messages, generated."""
