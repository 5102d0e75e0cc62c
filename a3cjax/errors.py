"""What users are told: the errors whose message is one line for them."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""

    def __init__(self, message: str):
        # It may quote a value or a name of several lines.
        super().__init__(" ".join(message.split()))


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message is one line for the user."""

    def __init__(self, message: str):
        # It may quote a file that holds anything.
        line = " ".join(message.split())[:1000]
        super().__init__("".join(char if char.isprintable() else "?" for char in line))


class AnswerError(RuntimeError):
    """An environment answered what nothing can be learned from; the message is one line."""

    def __init__(self, message: str):
        # It may quote what was returned.
        super().__init__(" ".join(message.split()))
