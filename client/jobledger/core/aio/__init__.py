"""The client for asyncio; core/sync is generated from it by scripts/generate_sync_client.py."""
