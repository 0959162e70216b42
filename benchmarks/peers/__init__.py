"""The same lifecycle on Jobledger and on what people use instead; see README.md."""
