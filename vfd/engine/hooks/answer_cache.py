"""A teacher is asked once for each image of a fixed set: what the hooks of methods that allow it share."""

from __future__ import annotations

import itertools
import json
import os
from abc import abstractmethod
from collections import Counter
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
from vfd.teachers import StoredTeacher

_TRIED = 8  # images that are loaded as often, to see whether they stay the same


class AnswerCacheHook(Hook):
    """Before training, stores a teacher's answers for all training images, and trains with those.

    A finished store of the same images, preparation and teacher is used as it is, an unfinished one is continued. Each
    process writes its own shard.

    Args:
        store: folder for the answers.
    """

    title: str  # of the plan and the progress

    def __init__(self, store: str) -> None:
        self.store = Path(store)

    @abstractmethod
    def check(self, model: Any) -> None:
        """Raise for another model."""

    @abstractmethod
    def fields(self, model: Any, images: Tensor) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What is stored of an image, from a preprocessed batch (B, 3, H, W): name -> (dtype, shape)."""

    @abstractmethod
    def ask(self, model: Any, images: Tensor, numbers: list[int]) -> dict[str, np.ndarray]:
        """The fields of preprocessed images (B, 3, H, W), whose numbers in the data set are given."""

    def inputs(self, model: Any) -> dict[str, Any]:
        """What the answers depend on beside images, preparation and teacher."""
        return {}

    def before_run(self, runner: Any) -> None:
        """Ask the teacher; before a checkpoint is resumed, which looks at the teacher that wrote it."""
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
        paths = [Path(dataset.get_data_info(i)['img_path']).resolve() for i in range(len(dataset))]
        root = Path(os.path.commonpath([path.parent for path in paths]))
        names = [path.relative_to(root).as_posix() for path in paths]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(
                f'{type(self).__name__}: the data set names {len(twice)} images twice, first {root / twice[0]}. '
                'Remove one of the entries.'
            )
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
        model.teacher = StoredTeacher(str(self.store), str(root), tuple(Store(self.store).fields))

    def _refuse_random(self, dataset: Any, pipeline: list[dict[str, Any]]) -> None:
        """Load a few images several times: each time they have to be the same."""
        for index in range(min(_TRIED, len(dataset))):
            seen: list[Tensor] = []
            for seed in range(_TRIED):
                with seeded(seed), suppress(BadDataError):
                    seen.append(dataset[index]['inputs'])
            if not all(torch.equal(seen[0], image) for image in seen):
                named = [str(step['type']) for step in pipeline if 'Random' in str(step['type'])]
                raise UserError(
                    f'{type(self).__name__} stores one answer an image, but the pipeline changes images every time'
                    f"{': ' if named else ''}{', '.join(named)}. Take dict(type='mmpretrain.CenterCrop', "
                    'crop_size=...) for a random crop, leave other random transforms out, or remove the hook.'
                )

    def _finished(self, inputs: dict[str, Any]) -> bool:
        """Whether every process has written these answers; images that cannot be read have none."""
        try:
            return Store(self.store).fingerprint == json.loads(json.dumps(inputs))
        except (MissingFileError, UnfinishedStoreError):
            return False

    def _write(self, model: Any, loader: Any, root: Path, names: list[str], inputs: dict[str, Any]) -> None:
        """This process's shard of the store."""
        numbers = {name: number for number, name in enumerate(names)}
        batches = map(model.data_preprocessor, loader)
        rank, world_size = get_dist_info()
        first = next(batches, None)
        if first is None:
            raise UserError(
                f'{type(self).__name__}: process {rank} of {world_size} has no image to ask for: start fewer '
                f'processes, or repair the unreadable ones among the {len(names)} images'
            )
        with StoreWriter(self.store, self.fields(model, first['inputs']), inputs, rank, world_size) as writer:
            done = len(writer.done)
            mine = len(range(rank, len(names), world_size))
            print(Plan(self.title, mine, done, writer.meta.dtype.itemsize))
            with Progress(self.title, mine, done) as progress:
                for batch in itertools.chain([first], batches):
                    keys = [
                        Path(s.img_path).resolve().relative_to(root).as_posix() for s in batch['data_samples']
                    ]
                    new = [i for i, key in enumerate(keys) if key not in writer.done]
                    if new:
                        answers = self.ask(model, batch['inputs'][new], [numbers[keys[i]] for i in new])
                        writer.append([keys[i] for i in new], **answers)
                        progress.advance(len(new))
