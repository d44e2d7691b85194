"""Errors of the training package: one base class, one exit code per kind.

Every message is written for the person at the terminal: what was wrong, what was expected, what to type.
"""

from typing import ClassVar


class TrainingError(Exception):
    """Base of every error that the package raises on purpose.

    ``exit_code`` is what ``python -m training`` returns to the shell.
    """

    exit_code: ClassVar[int] = 1


class UsageError(TrainingError):
    """An option has a value that cannot work, whatever the data or the server."""

    exit_code = 2


class DataError(TrainingError):
    """The data set is missing, damaged, or not what the task needs."""

    exit_code = 3


class TrackingError(TrainingError):
    """The tracking server or its registry could not be reached, or refused a request."""

    exit_code = 4


class ValidationFailedError(TrainingError):
    """The registered version did not reach the threshold on held-out data, or could not be loaded."""

    exit_code = 5


class ChampionError(TrainingError):
    """Today's champion could not be compared with the new version, so nothing was promoted."""

    exit_code = 6
