"""The two ways a run ends badly, each with one sentence for the user. `mmctr_jax.cli` turns them into exit codes."""

_LONGEST = 1000  # characters of a message


def one_line(message: str) -> str:
    """Names out of people's files may hold anything: what does not print is escaped, what goes on too long is cut."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} … {line[-half:]}"


class InputError(Exception):
    """Bad configuration, data, checkpoint or arguments (exit code 2). The message says what, where and what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class NoRoomError(InputError):
    """A disk or quota is full: once there is room, the same command may end well (exit code 1)."""


class UnfitError(InputError):
    """The configuration cannot be trained with these data on this machine; others can."""


class TrainingError(Exception):
    """Training could not go on, e.g. because the disk is full (exit code 1)."""


class FailedError(TrainingError):
    """For a reason that lies in the configuration: another attempt would end the same way."""
