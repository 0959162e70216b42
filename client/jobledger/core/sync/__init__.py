# Generated from core/aio by scripts/generate_sync_client.py. Do not edit.
"""The client for asyncio; core/sync is generated from it by scripts/generate_sync_client.py."""
