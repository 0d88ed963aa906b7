"""Train the quickstart's students: distilled without labels, and the supervised twin of equal budget."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

import vfd
from quickstart.data import ImageFolders
from quickstart.teacher import as_input, load_images, unlabelled_name
from vfd.apis.training import run
from vfd.evaluation import knn_predict
from vfd.export import LoadedStudent, live_student
from vfd.stores import atomic_write
from vfd.students import forward_taps
from vfd.visualization import read_scalars

DONE, STARTED = 'done.json', 'started.json'
MOST_THREADS = 4  # more only wait for each other in a network this small


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        kind: ``distilled`` or ``supervised``.
        seed: of weights, data order and augmentation.
        folder: its work folder.
        accuracy: of the last step on the test images, in 0..1.
        knn: accuracy of nearest neighbours among the labelled images, by its features, in 0..1.
        seconds: of the training, its interrupted parts included.
    """

    kind: str
    seed: int
    folder: Path
    accuracy: float
    knn: float
    seconds: float

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return last_checkpoint(self.folder)


def train_once(
    cfg: Config, kind: str, seed: int, folder: Path, data: ImageFolders, inputs: dict[str, Any]
) -> tuple[Run, bool]:
    """Train, unless the same training is finished in ``folder``; continue it where it was interrupted.

    Args:
        cfg: prepared config.
        kind: ``distilled`` or ``supervised``.
        seed: of the run.
        folder: becomes the work folder. What another config or other inputs left there is removed.
        data: for the features that nearest neighbours are asked on.
        inputs: what the training depends on beside the config, in plain types.

    Returns:
        The run, and whether it was finished already.
    """
    cfg.randomness.seed = seed
    cfg.work_dir = str(folder)
    content = {'config': cfg.to_dict(), 'inputs': inputs, 'images': data.fingerprint, 'vfd': vfd.__version__}
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    if _read(folder / DONE).get('key') == key and last_checkpoint(folder).exists():
        return Run(kind, seed, folder, **_read(folder / DONE)['result']), True
    started = _read(folder / STARTED)
    resume = started.get('key') == key
    earlier = started['seconds'] if resume else 0.0
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    atomic_write(folder / STARTED, json.dumps({'key': key, 'seconds': earlier}))
    cfg.resume = resume
    cfg.experiment_name = f'{kind}-seed{seed}-{secrets.token_hex(4)}'  # several runs in one process
    begun = time.perf_counter()
    try:
        with training_threads():
            run(cfg)
    finally:  # also when interrupted: the time counts for the run that goes on
        seconds = earlier + time.perf_counter() - begun
        atomic_write(folder / STARTED, json.dumps({'key': key, 'seconds': seconds}))
    accuracy = read_scalars(folder)['accuracy/top1'][1][-1] / 100
    student = live_student(cfg, last_checkpoint(folder))
    result = {'accuracy': accuracy, 'knn': student_knn(student, data), 'seconds': seconds}
    atomic_write(folder / DONE, json.dumps({'key': key, 'result': result}))
    return Run(kind, seed, folder, **result), False


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run; a file that does not exist when there is none."""
    pointer = folder / 'last_checkpoint'
    return folder / Path(pointer.read_text().strip()).name if pointer.exists() else pointer


def student_knn(student: LoadedStudent, data: ImageFolders) -> float:
    """Accuracy of nearest neighbours among the labelled images, in the space of the student's pooled features."""
    labelled, test = data.files('labelled'), data.files('test')
    # The labelled images lie among the unlabelled ones too; asking for those keeps one rule with the teacher.
    bank = student_features(student, data, [unlabelled_name(file) for file in labelled])
    predicted = knn_predict(
        bank, np.array([data.label(file) for file in labelled]), student_features(student, data, test)
    )
    return float(np.mean(predicted == [data.label(file) for file in test]))


def student_features(student: LoadedStudent, data: ImageFolders, files: list[str]) -> np.ndarray:
    """Pooled features (N, D) of a student."""
    parts = []
    with torch.inference_mode():
        for begin in range(0, len(files), 250):
            images = as_input(load_images(data.root, files[begin : begin + 250]), student.normalization)
            parts.append(forward_taps(student.model, images, ['pooled'])['pooled'])
    return torch.cat(parts).numpy()


@contextmanager
def training_threads() -> Iterator[None]:
    """As many threads as there are cores, but no more than such a small network can use."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    torch.set_num_threads(min(cores, MOST_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(path: Path) -> dict[str, Any]:
    """A small JSON file; empty when it is not there."""
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
