"""The training config of a search's winner."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from vfd.apis.check import TOP_LEVEL_KEYS

# Keys of a student's config about training and not about the network.
_OF_TRAINING = ('loss', 'train_cfg', 'with_cp', 'data_preprocessor', 'init_cfg')


def winner_config(cfg: Config, student: dict[str, Any]) -> str:
    """Return the search's config with the winner as its student: a whole config that ``vfd train`` runs.

    Args:
        cfg: the config that was searched with, options merged.
        student: the winner's config.
    """
    content = cfg._cfg_dict.to_dict()
    before = content['model'].get('student') or {}
    if before.get('type', '').rpartition('.')[2] == student['type'].rpartition('.')[2]:
        student = {**{k: before[k] for k in _OF_TRAINING if k in before}, **student}
    content['model']['student'] = student
    kept = {
        name: value
        for name, value in content.items()
        if name in TOP_LEVEL_KEYS and name not in ('search', 'work_dir')
    }
    return f'# The winner of a search, with its teacher: vfd train <this file>\n{Config(kept).pretty_text}'
