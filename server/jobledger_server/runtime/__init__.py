"""The process: its port, file descriptors, connections, sibling processes and supervision."""
