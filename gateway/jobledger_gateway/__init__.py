"""The gateway: Jobledger over HTTP, for browsers. A client of the service like any other."""
