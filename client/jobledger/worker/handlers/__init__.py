"""What runs for a type of job, and how one job runs."""
