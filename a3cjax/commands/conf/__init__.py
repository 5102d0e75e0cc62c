"""Settings files of the command line."""
