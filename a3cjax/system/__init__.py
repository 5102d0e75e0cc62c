"""The machine and the process: files, cores, compilation, signals, provenance."""
