"""Compute a teacher's features once for each sample of a fixed set: the base class of the methods' hooks."""

from __future__ import annotations

import itertools
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook
from torch import Tensor

from vfd.engine.seeding import seeded
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.stores import Plan, Progress, Store, StoreWriter, UnfinishedStoreError, fingerprint_files
from vfd.stores.sample_key import OWN, common_folder, sample_key
from vfd.teachers import StoredTeacher

_TRIED = 8  # samples that are loaded as often, to see whether they stay the same


class TeacherOutputCacheHook(Hook):
    """Before training, stores a teacher's features of all training samples, and trains with those.

    A finished store of the same samples, preparation and teacher is used as it is, an unfinished one is continued. Each
    process writes its own shard. Records are found by the key of a sample (:mod:`vfd.stores.sample_key`), which need
    not be an image. The teacher runs without autocast, also for a run that uses it, so that a store holds the same
    features whichever process wrote it.

    Args:
        store: folder for the features.
    """

    title: str  # of the plan and the progress

    def __init__(self, store: str) -> None:
        self.store = Path(store)

    @abstractmethod
    def check(self, model: Any) -> None:
        """Raise for another model."""

    @abstractmethod
    def fields(self, model: Any, images: Tensor) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name what is stored of a sample, from the inputs of a preprocessed batch: name -> (dtype, shape)."""

    @abstractmethod
    def compute(self, model: Any, images: Tensor, numbers: list[int]) -> dict[str, np.ndarray]:
        """Compute the fields of preprocessed inputs, such as (B, 3, H, W), whose numbers in the data set are given."""

    def inputs(self, model: Any) -> dict[str, Any]:
        """Return what the features depend on beside images, preparation and teacher."""
        return {}

    def before_run(self, runner: Any) -> None:
        """Run the teacher; before a checkpoint is resumed, which checks the teacher that wrote it."""
        model = runner.bare_model
        config = runner.cfg.train_dataloader.to_dict()
        self.check(model)
        loader = runner.build_dataloader(
            {
                **config,
                'drop_last': False,
                'persistent_workers': False,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False, 'round_up': False},
            }
        )
        dataset = loader.stream.dataset
        self._refuse_random(dataset, config['dataset'].get('pipeline', []))
        root, names = self._keys(dataset)
        inputs = {
            'images': fingerprint_files(names, root),
            'dataset': config['dataset'],
            'preprocessor': runner.cfg.get('data_preprocessor') or runner.cfg.model.get('data_preprocessor'),
            'teacher': model.teacher.fingerprint(),
            **self.inputs(model),
        }
        if not self._finished(inputs):
            self._write(model, loader, root, names, inputs)
        barrier()
        model.teacher = StoredTeacher(str(self.store), root, tuple(Store(self.store).fields))

    def _keys(self, dataset: Any) -> tuple[str, list[str]]:
        """The folder to which keys are relative, and the key of every sample, see :mod:`vfd.stores.sample_key`."""
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        root = str(getattr(dataset, 'data_root', None) or '')
        names = [sample_key(info, root) for info in infos]
        if not root:  # data sets in data sets have none
            paths = [name for name, info in zip(names, infos, strict=True) if OWN not in info]
            root = common_folder(paths)
            names = [sample_key(info, root) for info in infos]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(
                f'{type(self).__name__}: the data set names {len(twice)} samples twice, first {twice[0]}. '
                'Remove one of the entries.'
            )
        return root, names

    def _refuse_random(self, dataset: Any, pipeline: list[dict[str, Any]]) -> None:
        """Load a few samples several times: each time they have to be the same."""
        for index in range(min(_TRIED, len(dataset))):
            seen: list[Any] = []
            for seed in range(_TRIED):
                with seeded(seed), suppress(BadDataError):
                    seen.append(dataset[index]['inputs'])
            if not all(_equal(seen[0], inputs) for inputs in seen):
                named = [str(step['type']) for step in pipeline if 'Random' in str(step['type'])]
                raise UserError(
                    f'{type(self).__name__} stores one record a sample, but the pipeline changes samples every time'
                    f"{': ' if named else ''}{', '.join(named)}. Take dict(type='mmpretrain.CenterCrop', "
                    'crop_size=...) for a random crop, leave other random transforms out, or remove the hook.'
                )

    def _finished(self, inputs: dict[str, Any]) -> bool:
        """Return whether every process has written these features; images that cannot be read have none."""
        try:
            return Store(self.store).fingerprint == json.loads(json.dumps(inputs))
        except (MissingFileError, UnfinishedStoreError):
            return False

    def _write(self, model: Any, loader: Any, root: str, names: list[str], inputs: dict[str, Any]) -> None:
        """This process's shard of the store."""
        numbers = {name: number for number, name in enumerate(names)}
        batches = map(model.data_preprocessor, loader)
        rank, world_size = get_dist_info()
        first = next(batches, None)
        if first is None:
            raise UserError(
                f'{type(self).__name__}: process {rank} of {world_size} has no sample to work on: start fewer '
                f'processes, or repair the unreadable ones among the {len(names)} samples'
            )
        with StoreWriter(self.store, self.fields(model, first['inputs']), inputs, rank, world_size) as writer:
            done = len(writer.done)
            mine = len(range(rank, len(names), world_size))
            print(Plan(self.title, mine, done, writer.meta.dtype.itemsize))
            with Progress(self.title, mine, done) as progress:
                for batch in itertools.chain([first], batches):
                    keys = [sample_key(sample, root) for sample in batch['data_samples']]
                    new = [i for i, key in enumerate(keys) if key not in writer.done]
                    if new:
                        features = self.compute(
                            model, _select(batch['inputs'], new), [numbers[keys[i]] for i in new]
                        )
                        writer.append([keys[i] for i in new], **features)
                        progress.advance(len(new))


def _equal(one: Any, other: Any) -> bool:
    """Return whether two samples' inputs are the same: tensors and arrays, also in lists and dictionaries."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other))


def _select(inputs: Any, rows: list[int]) -> Any:
    """Some samples of a batch: rows of tensors, items of lists, the same in dictionaries."""
    if isinstance(inputs, Mapping):
        return {key: _select(value, rows) for key, value in inputs.items()}
    return inputs[rows] if isinstance(inputs, (Tensor, np.ndarray)) else [inputs[row] for row in rows]
