"""The equal-budget twin: what the student alone reaches with labels and the same number of steps.

A distilled student is worth something only if the same network, trained the ordinary way for as long, is worse.
"""

from __future__ import annotations

import math
import os

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from vfd.errors import UserError


def twin(config: Config) -> Config:
    """The config of the supervised twin of a distillation config.

    The twin is the config's student with the same data preprocessor, seed (so the same first weights), optimizer,
    schedule and number of steps; it learns from the labels. What must differ, usually the labelled images, stands
    in the config under ``baseline`` and is merged over it, for example
    ``baseline=dict(train_dataloader=dict(dataset=dict(data_prefix='labelled')))``.

    Where the config counts epochs, the labelled images are repeated so that an epoch of the twin has as many steps as
    one of the distillation; the schedule is then the same in both. Where the distillation takes K crops of an image at
    a time and counts K epochs for that, an epoch of the twin has a K-th of the steps, rounded up.

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
    if str(cfg.train_cfg.get('type')).endswith('MultiCropEpochLoop'):  # an epoch of the twin has single crops
        lengths = {key: cfg.train_cfg[key] for key in ('max_epochs', 'val_interval') if key in cfg.train_cfg}
        cfg.train_cfg = ConfigDict(by_epoch=True, **lengths)
    cfg.merge_from_dict(cfg.pop('baseline', None) or {})
    if _counts_epochs(cfg.train_cfg) and cfg.train_dataloader != distillation:
        cfg.train_dataloader = _of_equal_length(cfg.train_dataloader, distillation, cfg.get('default_scope'))
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir}/baseline'
    return cfg


def _counts_epochs(train_cfg: ConfigDict) -> bool:
    """Whether a training loop counts epochs, as mmengine decides it."""
    return train_cfg.get('by_epoch', 'max_epochs' in train_cfg)


def _of_equal_length(loader: ConfigDict, other: ConfigDict, scope: str | None) -> ConfigDict:
    """The data loader, its images repeated and cut so that an epoch has as many batches as one of ``other``."""
    init_default_scope(scope or 'mmengine')
    own, wanted = (len(DATASETS.build(part.dataset)) for part in (loader, other))
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    share = math.ceil(wanted / processes)
    size = other.batch_size * other.dataset.get('num_crops', 1)  # a pass of K crops counts as K epochs
    batches = share // size if other.get('drop_last') else math.ceil(share / size)
    times = math.ceil(batches * loader.batch_size * processes / own)
    repeated = dict(type='RepeatDataset', times=times, dataset=loader.dataset)
    return ConfigDict(loader, dataset=repeated, num_batch_per_epoch=batches)
