"""The equal-budget twin: what the student alone reaches with labels and the same number of steps.

A distilled student is worth something only if the same network, trained the ordinary way for as long, is worse.
"""

from __future__ import annotations

import math
import os

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from vfd.engine.multi_crop import crops_of
from vfd.errors import UserError


def twin(config: Config) -> Config:
    """The config of the supervised twin of a distillation config.

    The twin is the config's student with the same data preprocessor, seed (so the same first weights), optimizer,
    schedule and number of steps; it learns from the labels. What must differ, usually the labelled images, stands
    in the config under ``baseline`` and is merged over it, for example
    ``baseline=dict(train_dataloader=dict(dataset=dict(data_prefix='labelled')))``.

    Where the config counts epochs, the labelled images are repeated and cut so that every pass of the twin has exactly
    as many steps as that pass of the distillation, also where a ``vfd.MultiCropEpochLoop`` has passes of two lengths;
    the loop and the schedule are the same in both.

    Args:
        config: a checked config whose model has a student.

    Returns:
        A new config; its work folder is ``<work_dir>/baseline``.

    Raises:
        UserError: the model has no student.
    """
    cfg = Config(config._cfg_dict.to_dict(), filename=config.filename)
    model = cfg.model
    if 'student' not in model:
        raise UserError(
            f'{cfg.filename}: the model {model.get("type")} has no student, so it has no supervised twin'
        )
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    student = model.student
    if preprocessor is not None:
        student['data_preprocessor'] = preprocessor
    cfg.model = student
    distillation = cfg.train_dataloader
    cfg.merge_from_dict(cfg.pop('baseline', None) or {})
    if _counts_epochs(cfg.train_cfg) and cfg.train_dataloader != distillation:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        multi_crop = str(cfg.train_cfg.get('type')).endswith('MultiCropEpochLoop')
        cfg.train_dataloader = _of_equal_length(cfg.train_dataloader, distillation, multi_crop)
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir}/baseline'
    return cfg


def _counts_epochs(train_cfg: ConfigDict) -> bool:
    """Whether a training loop counts epochs, as mmengine decides it."""
    return train_cfg.get('by_epoch', 'max_epochs' in train_cfg)


def _of_equal_length(loader: ConfigDict, other: ConfigDict, multi_crop: bool) -> ConfigDict:
    """The data loader, its images repeated and cut so that a pass has as many batches as one of ``other``."""
    wanted = DATASETS.build(other.dataset)
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    share = math.ceil(len(wanted) / processes)

    def samples(batch_size: int) -> int:
        """Of a pass of the twin: whole batches, as many as ``other`` makes with this batch size."""
        batches = share // batch_size if other.get('drop_last') else math.ceil(share / batch_size)
        return other.get('num_batch_per_epoch', batches) * loader.batch_size * processes

    dataset = dict(type='vfd.EqualLengthDataset', dataset=loader.dataset, length=samples(other.batch_size))
    if multi_crop:
        crops = crops_of(wanted)
        dataset |= dict(num_crops=crops, single_length=samples(other.batch_size * crops))
    return ConfigDict(loader, dataset=dataset)
