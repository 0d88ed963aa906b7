"""Known accuracies of a space's candidates, read from a table."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vfd.errors import MissingFileError, UserError, did_you_mean
from vfd.methods.diswot.spaces import StudentSpace


class TableScorer:
    """The accuracy of a candidate from a table: the oracle for a search without training.

        oracle = TableScorer(NASBench201Space(100), 'nb201_accuracy.npz', 'cifar100')
        AgingEvolution(300).run(space, oracle, lambda cell: True, random.Random(0))

    Args:
        space: names the candidate of a row.
        file: ``.csv``, ``.csv.gz`` or ``.npz`` (arrays of one length).
        column: of the accuracies. Empty cells and NaN are unknown accuracies.

    Attributes:
        known: candidate -> accuracy.

    Raises:
        UserError: the file, the column or the candidates are not there.
    """

    def __init__(self, space: StudentSpace, file: str | Path, column: str) -> None:
        self.path = Path(file)
        if not self.path.is_file():
            raise MissingFileError(f'table of accuracies: {self.path} does not exist')
        try:
            rows = _npz_rows(self.path, column) if self.path.suffix == '.npz' else _csv_rows(self.path)
        except (ValueError, EOFError, OSError, BadZipFile) as error:
            raise UserError(f'{self.path} cannot be read as a table ({error})') from None
        if rows and column not in rows[0]:
            raise UserError(
                f'table of accuracies: {self.path} has no column "{column}"{did_you_mean(column, rows[0])}; it has '
                f'{", ".join(rows[0])}'
            )
        self.known: dict[str, float] = {}
        try:
            for row in rows:
                value = float(row[column] or 'nan') if isinstance(row[column], str) else float(row[column])
                if math.isfinite(value):
                    self.known[space.row_name(row)] = value
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f'{self.path} is no table of accuracies for this space ({error})') from None
        everything = space.candidates()
        if everything is not None:
            self.check(everything)

    def __call__(self, candidate: str) -> float:
        """Return the accuracy of a candidate in the table."""
        return self.known[candidate]

    def check(self, candidates: list[str]) -> None:
        """Raise UserError when none of the candidates is in the table."""
        if not self.known.keys() & set(candidates):
            listed = ', '.join(list(self.known)[:3]) or 'nothing'
            raise UserError(
                f'{self.path} has an accuracy of none of the candidates. It has {listed}; the space has '
                f'{", ".join(candidates[:3])}. The first column (or one named "candidate") names the candidate.'
            )


def _csv_rows(path: Path) -> list[Mapping[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == '.gz' else data).decode('utf-8')
    return list(csv.DictReader(io.StringIO(text)))


def _npz_rows(path: Path, column: str) -> list[Mapping[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        if column not in file.files:
            return [dict.fromkeys(file.files)]
        count = len(file[column])
        arrays = {name: file[name].tolist() for name in file.files if len(file[name]) == count}
    return [dict(zip(arrays, values, strict=True)) for values in zip(*arrays.values(), strict=True)]
