"""Videos of games: what the agent sees, what it thinks of it, and what it does."""

from a3cjax.video.recording import (
    FORMATS,
    Recording,
    VideoOptions,
    record_at_end,
    record_video,
)

__all__ = ["FORMATS", "Recording", "VideoOptions", "record_at_end", "record_video"]
