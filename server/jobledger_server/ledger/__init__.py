"""Commands in, commits out: group commit and coalesced reads."""
