"""One module for each scenario of `run`, with `measure` and, if it has options, `add_arguments`."""
