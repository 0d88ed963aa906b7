"""Errors that a user can fix.

The command line prints their text alone, without a traceback, and exits with code 2. Everything else that
escapes is a defect of vfd and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input; the text states it and how to fix it."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    def __str__(self) -> str:  # FileNotFoundError would print errno fields
        return str(self.args[0]) if self.args else ''


class DiskFullError(UserError, OSError):
    """A file could not be written for lack of space; files completed before are safe."""

    def __str__(self) -> str:  # OSError would print errno fields
        return str(self.args[0]) if self.args else ''


class MissingPackageError(UserError, ImportError):
    """An optional package is needed and not installed; the text names the command that installs it."""


class BadDataError(UserError):
    """One sample of a data set cannot be used (truncated image, empty annotation, NaN depth).

    Datasets skip and count it, unless ``strict_data=True``.
    """


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a suggestion such as ``' (did you mean "max_epochs"?)'``, or an empty string when nothing is near.

    Args:
        word: what was written.
        known: what may be written.
        cutoff: how near, from 0 to 1 (the same).
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f' (did you mean "{near[0]}"?)' if near else ''
