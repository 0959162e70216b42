"""What a job is and how it may change. Standard library only."""
