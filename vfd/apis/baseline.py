"""The equal-budget twin: what the student alone reaches with labels and the same number of steps.

A distilled student is worth something only if the same network, trained the ordinary way for as long, is worse.
"""

from __future__ import annotations

from mmengine.config import Config

from vfd.errors import UserError


def twin(config: Config) -> Config:
    """The config of the supervised twin of a distillation config.

    The twin is the config's student with the same data preprocessor, seed (so the same first weights), optimizer,
    schedule and number of steps; it learns from the labels. What must differ, usually the labelled images, stands
    in the config under ``baseline`` and is merged over it, for example
    ``baseline=dict(train_dataloader=dict(dataset=dict(data_prefix='labelled')))``.

    The number of steps is equal where the config counts iterations (``by_epoch=False``); with epochs, both see as many
    epochs of their own data.

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
    cfg.merge_from_dict(cfg.pop('baseline', None) or {})
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir}/baseline'
    return cfg
