"""Who calls, and what each caller may do, by the access file."""
