"""The wire: requests to commands, values to messages, errors to codes."""
