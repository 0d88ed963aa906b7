"""Errors that a user can mend.

The command line prints their text alone, without a traceback, and exits with code 2. Everything else that
escapes is a defect of vfd and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something in the user's hands is wrong; the text says what, and how to mend it."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named is not there."""

    def __str__(self) -> str:  # FileNotFoundError would print errno fields
        return str(self.args[0]) if self.args else ''


class DiskFullError(UserError, OSError):
    """A file could not be written for want of space; what was complete before is safe."""

    def __str__(self) -> str:  # OSError would print errno fields
        return str(self.args[0]) if self.args else ''


class MissingPackageError(UserError, ImportError):
    """An optional package is needed and not installed; the text names the command that installs it."""


class BadDataError(UserError):
    """One sample of a data set cannot be used (truncated image, empty annotation, NaN depth).

    Datasets skip and count it, unless ``strict_data=True``.
    """


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A suggestion such as ``' (did you mean "max_epochs"?)'``, or an empty string when nothing is near.

    Args:
        word: what was written.
        known: what may be written.
        cutoff: how near, from 0 to 1 (the same).
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f' (did you mean "{near[0]}"?)' if near else ''
