"""What is true of the database between any two commits, and how to mend it where it is not."""
