"""The equal-budget supervised baseline: the student alone, with labels and the same number of steps.

A distilled student is worth something only if the same network, trained the ordinary way for as long, is worse.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, init_default_scope

from vfd.engine.multi_crop import crops_of
from vfd.errors import UserError


def baseline_config(config: Config) -> Config:
    """Return the config of the equal-budget baseline of a config.

    The method defines its baseline (:meth:`vfd.methods.base.Method.baseline`): its student, trained on labels,
    or another network without teacher. Data preprocessor, seed (so the same first weights), optimizer, schedule and
    number of steps stay. What must differ, usually the labelled images, stands in the config under ``baseline`` and
    is merged over it, for example ``baseline=dict(train_dataloader=dict(dataset=dict(data_prefix='labelled')))``.

    Where the config counts epochs, the labelled images are repeated and cut so that each pass of the baseline has
    as many steps as that of the distillation, also where a ``vfd.MultiCropEpochLoop`` has passes of two lengths;
    the loop and the schedule are the same in both.

    Args:
        config: a checked config.

    Returns:
        A new config; its work folder is ``<work_dir>/baseline``.

    Raises:
        UserError: the model has no baseline.
    """
    cfg = Config(config._cfg_dict.to_dict(), filename=config.filename)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    cfg.model = _model(cfg)
    distillation = cfg.train_dataloader
    cfg.merge_from_dict(cfg.pop('baseline', None) or {})
    if _counts_epochs(cfg.train_cfg) and cfg.train_dataloader != distillation:
        multi_crop = str(cfg.train_cfg.get('type')).endswith('MultiCropEpochLoop')
        cfg.train_dataloader = _of_equal_length(cfg.train_dataloader, distillation, multi_crop)
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir}/baseline'
    return cfg


def _model(cfg: Config) -> ConfigDict:
    """Return the config of the model that the baseline trains."""
    kind = _class_of(cfg.model)
    if not hasattr(kind, 'baseline'):
        raise UserError(
            f'{cfg.filename}: the model {cfg.model.get("type")} is no method of vfd, so it has no equal-budget '
            'baseline: drop --baseline'
        )
    model = ConfigDict(kind.baseline(cfg.model.to_dict()))
    network = _class_of(model)
    if inspect.isclass(network) and not issubclass(network, BaseModel):
        raise UserError(
            f'{cfg.filename}: the student {model.type} of {cfg.model.type} is a network without a loss of its own, '
            'so it cannot be trained on labels alone'
        )
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if preprocessor is not None:
        model['data_preprocessor'] = copy.deepcopy(preprocessor)
    return model


def _class_of(model: ConfigDict) -> Any:
    """Return the class that a model's config names in the current scope, None for an unknown one."""
    kind = model.get('type')
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind) if isinstance(kind, str) else kind


def _counts_epochs(train_cfg: ConfigDict) -> bool:
    """Return whether a training loop counts epochs, as mmengine decides it."""
    return train_cfg.get('by_epoch', 'max_epochs' in train_cfg)


def _of_equal_length(loader: ConfigDict, other: ConfigDict, multi_crop: bool) -> ConfigDict:
    """Repeat and cut the images of a data loader so that a pass has as many batches as one of ``other``."""
    wanted = DATASETS.build(other.dataset)
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    share = math.ceil(len(wanted) / processes)

    def samples(batch_size: int) -> int:
        """Return the samples of a baseline's pass: whole batches, as many as ``other`` makes with this batch size."""
        batches = share // batch_size if other.get('drop_last') else math.ceil(share / batch_size)
        return other.get('num_batch_per_epoch', batches) * loader.batch_size * processes

    dataset = dict(type='vfd.EqualLengthDataset', dataset=loader.dataset, length=samples(other.batch_size))
    if multi_crop:
        crops = crops_of(wanted)
        dataset |= dict(num_crops=crops, single_length=samples(other.batch_size * crops))
    return ConfigDict(loader, dataset=dataset)
