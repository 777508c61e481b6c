"""The two ways a run ends badly, each with one sentence for the user. `mmctr_jax.cli` turns them into exit codes."""


class InputError(Exception):
    """Bad configuration, data, checkpoint or arguments (exit code 2). The message says what, where and what to do."""


class TrainingError(Exception):
    """Training could not go on, e.g. a loss that is not finite (exit code 1)."""
