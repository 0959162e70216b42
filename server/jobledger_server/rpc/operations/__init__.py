"""google.longrunning.Operations: jobs as operations."""
