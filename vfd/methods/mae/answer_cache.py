"""The teacher of a fixed set of images is asked once.

Stage 2 of further pre-training uses no augmentation, so the teacher's answer for an image never changes: one pass over
the images replaces a teacher's pass in every step. In a config::

    custom_hooks = [dict(type='vfd.TeacherCacheHook', store='work_dirs/<name>/teacher')]
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook
from torch import Tensor

from vfd.errors import MissingFileError, UserError
from vfd.registry import HOOKS
from vfd.stores import Plan, Progress, Store, StoreWriter, UnfinishedStoreError, fingerprint_files
from vfd.teachers import StoredTeacher, Teacher

from .self_distillation import TAPS, THUMBNAIL, SelfDistillMAE, thumbnails


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Before training, stores the teacher's answers for all training images, and trains with those.

    For :class:`vfd.SelfDistillMAE`. A finished store of the same images, preparation and teacher is used as it is, an
    unfinished one is continued. Losses are those of the live teacher. Random transforms are refused: the model compares
    what it sees with what the teacher saw.

    Args:
        store: folder for the answers; about ``4 * (D + 48)`` bytes an image.

    Raises:
        UserError: another model, or a store of other images or another teacher.
    """

    def __init__(self, store: str) -> None:
        self.store = Path(store)

    def before_run(self, runner: Any) -> None:
        """Ask the teacher; before a checkpoint is resumed, which looks at the teacher that wrote it."""
        model = runner.bare_model
        if not isinstance(model, SelfDistillMAE) or not isinstance(model.teacher, Teacher):
            raise UserError(
                'TeacherCacheHook is for vfd.SelfDistillMAE with a live vfd.Teacher; remove it from custom_hooks.'
            )
        config = runner.cfg.train_dataloader.to_dict()
        loader = runner.build_dataloader(
            {
                **config,
                'drop_last': False,
                'persistent_workers': False,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False, 'round_up': False},
            }
        )
        dataset = loader.stream.dataset
        paths = [Path(dataset.get_data_info(i)['img_path']).resolve() for i in range(len(dataset))]
        root = Path(os.path.commonpath([path.parent for path in paths]))
        names = [path.relative_to(root).as_posix() for path in paths]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(
                f'TeacherCacheHook: the data set names {len(twice)} images twice, first {root / twice[0]}.'
            )
        inputs = {
            'images': fingerprint_files(names, root),
            'dataset': config['dataset'],
            'preprocessor': runner.cfg.get('data_preprocessor') or runner.cfg.model.get('data_preprocessor'),
            'teacher': model.teacher.fingerprint(),
        }
        tap = TAPS[model.target]
        if not self._finished(tap, inputs):
            self._write(model, loader, root, len(names), inputs)
        barrier()
        model.teacher = StoredTeacher(str(self.store), str(root), (tap, THUMBNAIL))

    def _finished(self, tap: str, inputs: dict[str, Any]) -> bool:
        """Whether every process has written these answers; images that cannot be read have none."""
        try:
            store = Store(self.store)
        except (MissingFileError, UnfinishedStoreError):
            return False
        return tap in store.fields and store.fingerprint == json.loads(json.dumps(inputs))

    def _write(
        self, model: SelfDistillMAE, loader: Any, root: Path, count: int, inputs: dict[str, Any]
    ) -> None:
        """This process's shard of the store."""
        tap = TAPS[model.target]
        network = model.student
        width = network.embed_dim
        shape = (width,) if model.target == 'cls' else (1 + network.num_patches, width)
        fields = {tap: ('float32', shape), THUMBNAIL: ('float32', (3, 4, 4))}
        rank, world_size = get_dist_info()
        with StoreWriter(self.store, fields, inputs, rank, world_size) as writer:
            done = len(writer.done)
            mine = len(range(rank, count, world_size))
            print(Plan("the teacher's answers", mine, done, writer.meta.dtype.itemsize))
            with Progress("the teacher's answers", mine, done) as progress:
                for batch in loader:
                    batch = model.data_preprocessor(batch)
                    images: Tensor = batch['inputs']
                    keys = [
                        Path(s.img_path).resolve().relative_to(root).as_posix() for s in batch['data_samples']
                    ]
                    new = [i for i, key in enumerate(keys) if key not in writer.done]
                    if new:
                        answers = model.teacher(images[new])[tap]
                        small = thumbnails(images[new])
                        arrays = {tap: answers.cpu().numpy(), THUMBNAIL: small.float().cpu().numpy()}
                        writer.append([keys[i] for i in new], **arrays)
                        progress.advance(len(new))
