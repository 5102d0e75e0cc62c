"""The run folder: what a run leaves, and how an agent comes back from it."""
