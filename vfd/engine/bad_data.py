"""Samples that cannot be used: which errors mean that, and the record of what was skipped.

The pipeline runs in loader workers, so a skipped sample travels to the main process together with its batch and is
counted there: what is counted is what training has seen, not what a worker has prefetched.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from vfd.errors import BadDataError, UserError
from vfd.stores.sample_key import find_key

FILE_NAME = 'bad_data.txt'
_NAMED_IN_LOG = 10


class BadSample(NamedTuple):
    """One sample that could not be used."""

    name: str
    reason: str


def is_bad_data(error: Exception) -> bool:
    """Whether a pipeline's error is the data's fault, so that the sample may be skipped.

    That is :class:`~vfd.errors.BadDataError`, a missing file, what Pillow raises for a file it cannot decode (an
    ``OSError`` without error number), and what mmcv and OpenCV raise for one.
    """
    if isinstance(error, UserError):
        return isinstance(error, BadDataError)
    if isinstance(error, OSError):
        return error.errno in (None, errno.ENOENT)
    if isinstance(error, AssertionError):
        return str(error).startswith('failed to load image')
    return type(error).__module__.startswith('cv2') and 'imdecode' in str(error)


def sample_name(dataset: Any, index: Any) -> str:
    """Give the key of a sample (:mod:`vfd.stores.sample_key`) where the data set knows it, otherwise its index."""
    get_data_info = getattr(dataset, 'get_data_info', None)
    info = get_data_info(index) if get_data_info is not None else {}
    return find_key(info, str(getattr(dataset, 'data_root', None) or '')) or f'sample {index}'


class BadDataLog:
    """Counts skipped samples and appends each name once to ``<work_dir>/bad_data.txt``.

    Args:
        work_dir: folder of the run.

    Attributes:
        counts: how often each name was skipped by this process.
    """

    def __init__(self, work_dir: str | Path) -> None:
        self.path = Path(work_dir) / FILE_NAME
        self.counts: Counter[str] = Counter()
        self._written: set[str] = set()
        if self.path.exists():
            self._written = {line.split('\t')[0] for line in self.path.read_text('utf-8').splitlines()}

    def add(self, samples: list[BadSample]) -> None:
        """Record the samples that were skipped for one batch."""
        for name, reason in samples:
            self.counts[name] += 1
            if name in self._written:
                continue
            self._written.add(name)
            reason = ' '.join(reason.split())
            with self.path.open('a', encoding='utf-8') as file:  # one short line: appends of ranks do not mix
                file.write(f'{name}\t{reason}\n')
            if len(self.counts) <= _NAMED_IN_LOG:
                print_log(f'skipped bad data: {name} ({reason})', 'current', logging.WARNING)
