"""Read back the scalars that a training run logged."""

from __future__ import annotations

import json
from pathlib import Path

Series = tuple[list[int], list[float]]


def read_scalars(work_dir: str | Path) -> dict[str, Series]:
    """Read the scalars of a run by name, from the files of mmengine's ``LocalVisBackend``.

    A run that was resumed wrote several files; where they overlap the later one counts.

    Args:
        work_dir: the run's folder.

    Returns:
        Name -> (steps, values), in the order of the steps; ``accuracy/top1`` or ``loss``, for example.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):  # folders are named by time
        step = 0
        for line in file.read_text(encoding='utf-8').splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # cut by a kill
                continue
            # A validation of an iteration-based run is logged with step 0 or its own iteration.
            step = row.get('step') or step
            for name, value in row.items():
                if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                    found.setdefault(name, {})[step] = float(value)
    return {name: (sorted(values), [values[s] for s in sorted(values)]) for name, values in found.items()}
