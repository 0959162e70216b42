"""What lies beneath SQL: a database's URL, its connections, its locks and its errors."""
