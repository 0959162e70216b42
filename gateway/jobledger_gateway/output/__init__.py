"""The output of jobs over HTTP: the half of the Durable Streams protocol that reads."""
