"""The denoised targets of a fixed set of images are computed once.

NOT the published training, in which every epoch sees another crop and other views: here each image has one crop and one
set of views. It saves the teacher, about four fifths of every step. In a config::

    custom_hooks = [dict(type='vfd.DenoisedCacheHook', store='work_dirs/<name>/targets')]
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook

from vfd.errors import MissingFileError, UserError
from vfd.registry import HOOKS
from vfd.stores import Plan, Progress, Store, StoreWriter, UnfinishedStoreError, fingerprint_files
from vfd.teachers import StoredTeacher

from .denoise import DenoisedTeacher
from .model import PHReg
from .views import draw_seeds


@HOOKS.register_module()
class DenoisedCacheHook(Hook):
    """Before training, stores the denoised features of all training images, and trains with those.

    A finished store of the same images, preparation and teacher is used as it is, an unfinished one is continued.

    Args:
        store: folder for the features; ``2 * T * D`` bytes an image (float16): 2.1 MB for DINOv2-B at 518 pixels.
        seed: of the views.

    Raises:
        UserError: another model, a pipeline with random transforms, or a store of other images or another teacher.
    """

    def __init__(self, store: str, seed: int = 0) -> None:
        self.store = Path(store)
        self.seed = seed

    def before_run(self, runner: Any) -> None:
        """Compute what is not there yet; before a checkpoint is resumed, which looks at the teacher that wrote it."""
        model = runner.bare_model
        if not isinstance(model, PHReg) or not isinstance(model.teacher, DenoisedTeacher):
            raise UserError('DenoisedCacheHook is for vfd.PHReg; remove it from custom_hooks.')
        config = runner.cfg.train_dataloader.to_dict()
        _refuse_random(config['dataset'].get('pipeline', []))
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
        inputs = {
            'images': fingerprint_files(names, root),
            'dataset': config['dataset'],
            'preprocessor': runner.cfg.get('data_preprocessor') or runner.cfg.model.get('data_preprocessor'),
            'teacher': model.teacher.fingerprint(),
            'views': {**model.teacher.view_settings, 'seed': self.seed},
        }
        if not self._finished(model.tap, inputs):
            self._write(model, loader, root, names, inputs)
        barrier()
        model.teacher = StoredTeacher(str(self.store), str(root), (model.tap,))

    def _finished(self, tap: str, inputs: dict[str, Any]) -> bool:
        """Whether every process has written these targets; images that cannot be read have none."""
        try:
            store = Store(self.store)
        except (MissingFileError, UnfinishedStoreError):
            return False
        return tap in store.fields and store.fingerprint == json.loads(json.dumps(inputs))

    def _write(self, model: PHReg, loader: Any, root: Path, names: list[str], inputs: dict[str, Any]) -> None:
        """This process's shard of the store."""
        seeds = draw_seeds(len(names), torch.Generator().manual_seed(self.seed))
        seeds_of = dict(zip(names, seeds, strict=True))
        batches = map(model.data_preprocessor, loader)
        first = next(batches)
        patches = first['inputs'].shape[-2:].numel() // model.teacher.patch_size**2
        fields = {model.tap: ('float16', (patches, model.student.out_channels))}
        rank, world_size = get_dist_info()
        with StoreWriter(self.store, fields, inputs, rank, world_size) as writer:
            done = len(writer.done)
            mine = len(range(rank, len(names), world_size))
            print(Plan('denoised targets', mine, done, writer.meta.dtype.itemsize))
            with Progress('denoised targets', mine, done) as progress:
                for batch in itertools.chain([first], batches):
                    keys = [
                        Path(s.img_path).resolve().relative_to(root).as_posix() for s in batch['data_samples']
                    ]
                    new = [i for i, key in enumerate(keys) if key not in writer.done]
                    if new:
                        wanted = torch.stack([seeds_of[keys[i]] for i in new])
                        targets = model.teacher(batch['inputs'][new], seeds=wanted)[model.tap]
                        writer.append([keys[i] for i in new], **{model.tap: targets.half().cpu().numpy()})
                        progress.advance(len(new))


def _refuse_random(pipeline: list[dict[str, Any]]) -> None:
    """A stored target is of one crop."""
    random = [str(step['type']) for step in pipeline if 'Random' in str(step['type'])]
    if random:
        raise UserError(
            f'DenoisedCacheHook stores one target an image, but the pipeline changes it every time: '
            f'{", ".join(random)}. '
            "Take dict(type='mmpretrain.CenterCrop', crop_size=...) instead, or remove the hook."
        )
