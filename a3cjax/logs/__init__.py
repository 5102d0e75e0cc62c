"""What a run tells while it goes on: files, trackers, terminal."""
