"""Every error a user can meet.

::

    LinealError (ValueError)
    |-- UsageError        an option or a combination of options that cannot work      (exit 2)
    |-- DataError         a row, a file or an encoding that cannot be read
    |-- EnvironmentFailure an environment that raised or returned nonsense
    |-- RewardError       a reward function that raised, hung or returned nonsense
    |-- ModelError        a model folder that cannot be loaded
    |-- CheckpointError   a checkpoint that is damaged or cannot be written
    |-- RunError          a run folder that is locked, missing or inconsistent
    `-- NonFiniteError    a loss, gradient or weight that is nan or infinite

A message says what was given, why it cannot work, and what to do.
"""


class LinealError(ValueError):
    """Base of every error that lineal raises on purpose; the command prints it as one line and exits 1."""

    exit_code = 1


class UsageError(LinealError):
    """An option, or a combination of options, that cannot work; exit code 2."""

    exit_code = 2


class DataError(LinealError):
    """A data file or row that cannot be used; the message starts with file:line[:column]."""


class RewardError(LinealError):
    """A reward function that raised, hung, or returned something that is no reward."""


class EnvironmentFailure(LinealError):
    """An environment that raised, changed its spaces, or returned something that is no observation or reward."""


class ModelError(LinealError):
    """A model folder that cannot be loaded or written."""


class CheckpointError(LinealError):
    """A checkpoint that is damaged, or that could not be written."""


class RunError(LinealError):
    """A run folder that is locked by another process, missing, or inconsistent."""


class NonFiniteError(LinealError):
    """A loss, gradient or weight became nan or infinite several times in a row."""
