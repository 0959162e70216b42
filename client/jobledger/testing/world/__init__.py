"""A world in which real servers, workers and clients run, in simulated time and from a seed."""
