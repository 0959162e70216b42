"""What a job is and how it may change. Pure; needs only the standard library and msgspec."""
