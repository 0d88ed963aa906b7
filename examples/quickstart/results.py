"""Results of the quickstart, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from quickstart.data import ImageFolders
from quickstart.training import Run


@dataclass(frozen=True)
class Results:
    """Everything that table and report show.

    Attributes:
        data: the images.
        teacher_name: timm's name of the teacher.
        probe: what ``fold_probe`` returned.
        teacher_knn: accuracy of nearest neighbours by the teacher's features, in 0..1.
        runs: the students.
        exports: certificates.
        example: the test image that was classified.
        config: text of the distillation's config.
        config_file: its name.
        seconds: of each step, as of when it was done.
        reused: steps that were there already.
    """

    data: ImageFolders
    teacher_name: str
    probe: dict[str, Any]
    teacher_knn: float
    runs: list[Run]
    exports: list[dict[str, Any]]
    example: str
    config: str
    config_file: str
    seconds: dict[str, float]
    reused: set[str]

    header = ('network', 'trained on', 'parameters', 'accuracy', 'kNN', 'training')
    distilled_name = 'student distilled'

    def of(self, kind: str) -> list[Run]:
        """Return the runs of a kind."""
        return [run for run in self.runs if run.kind == kind]

    def accuracy(self, kind: str) -> float:
        """Return the mean accuracy of the runs of a kind."""
        return mean(run.accuracy for run in self.of(kind))

    def rows(self) -> list[list[str]]:
        """Return the rows below ``header``."""
        labels, images = self.data.counts['labelled'], self.data.counts['unlabelled']
        size = self.exports[0]['student']['parameters']
        teacher_size = self.probe['parameters']
        rows = [
            [
                'teacher probe', f'{labels} labels', f'{teacher_size / 1e6:.2f} M',
                f'{self.probe["test_accuracy"]:.3f}', f'{self.teacher_knn:.3f}', '',
            ]
        ]  # fmt: skip
        for kind, name, source in (
            ('supervised', 'student supervised', f'{labels} labels'),
            ('distilled', self.distilled_name, f'{images} images, no labels'),
        ):
            runs = self.of(kind)
            rows.append(
                [
                    name, source, f'{size / 1e6:.3f} M', spread([run.accuracy for run in runs]),
                    spread([run.knn for run in runs]), f'{mean(run.seconds for run in runs):.0f} s',
                ]
            )  # fmt: skip
        return rows

    def times(self) -> list[tuple[str, float]]:
        """Return the seconds of each step."""
        return list(self.seconds.items())


def spread(values: Sequence[float]) -> str:
    """Format ``0.774``, or mean and standard deviation of several runs: ``0.774 ± 0.004``."""
    if len(values) == 1:
        return f'{values[0]:.3f}'
    return f'{mean(values):.3f} ± {stdev(values):.3f}'
