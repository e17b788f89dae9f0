"""What can go wrong, by name. Every message says what was expected, what came, and what to do.

The classes derive from the built-in error a caller would expect, so ``except ValueError`` keeps working.
"""


class DataError(ValueError):
    """Input data cannot be used: wrong shape, a NaN, an unseen label, a damaged or lying file."""


class OptionError(ValueError):
    """An option has an impossible value: an unknown optimizer, a negative rate, a batch of zero rows."""


class ModelFileError(ValueError):
    """A model file is cut short, of another kind, or of a version this release does not read."""


class BackendUnavailable(RuntimeError):
    """The backend asked for cannot run here, and ``strict=True`` forbids another one."""


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite, so the weights are worthless."""


class BackendFallbackWarning(UserWarning):
    """The backend asked for cannot run here; the message says why and what runs instead."""
