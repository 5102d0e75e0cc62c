"""Writing a file in one piece."""

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Writes a file that is there either as it was before or complete, whatever happens."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
