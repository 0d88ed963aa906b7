"""Build and check the parts of a search's config."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from vfd import compat
from vfd.apis.config import load_config
from vfd.errors import UserError, did_you_mean
from vfd.offline.search.batches import Batch, digest, noise_batches, training_batches
from vfd.offline.search.settings import SearchSettings
from vfd.registry import TASK_UTILS


@dataclass(frozen=True)
class SearchContext:
    """The parts of a search.

    Attributes:
        cfg: the config, options merged.
        folder: where the results go.
        settings: its ``search``.
        space: of candidates.
        searcher: goes through it.
        table: known accuracies, or None.
        teacher: config of its source.
        batches: what the networks see.
        unreadable: images that could not be read.
    """

    cfg: Config
    folder: Path
    settings: SearchSettings
    space: Any
    searcher: Any
    table: Any
    teacher: dict[str, Any]
    batches: list[Batch]
    unreadable: int

    @property
    def planned(self) -> bool:
        """Whether the candidates are known before any is scored, so that ranks can share them."""
        return hasattr(self.searcher, 'plan')

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Values that decide the scores."""
        settings = self.settings
        return {
            'space': settings.space, 'teacher': self.teacher, 'scorers': list(settings.computed_scorers),
            'init': settings.init, 'images': digest(self.batches), 'seeds': settings.seeds, 'seed': settings.seed,
            **_surroundings(settings.device),
        }  # fmt: skip

    def scorer(self) -> Any:
        """Build the ``StudentScorer``, which runs the teacher. ``cuda`` means this rank's device."""
        settings, local = self.settings, os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))
        return TASK_UTILS.build(
            {'type': 'vfd.StudentScorer'},
            default_args={
                'teacher': self.teacher,
                'scorers': settings.computed_scorers,
                'batches': self.batches,
                'seeds': [settings.seed + i for i in range(settings.seeds)],
                'init': settings.init,
                'device': f'cuda:{local}' if settings.device == 'cuda' else settings.device,
            },
        )

    def described(self) -> str:
        """Describe what is scored, in a line."""
        settings = self.settings
        counts = sorted({len(images) for images, _ in self.batches})
        images = f'{counts[0]} to {counts[-1]}' if len(counts) > 1 else str(counts[0])
        fewer = f'; {settings.batch_size} were requested' if counts != [settings.batch_size] else ''
        return (
            f'{", ".join(settings.scorers)}: {settings.seeds} seed(s) x {images} images ({settings.images}{fewer}), '
            f'{settings.init} weights; scores: {self.folder}'
        )


def read_config(config: str | Path | Config, options: dict[str, Any] | None) -> Config:
    """Read a search's config and merge the options over it; one that is loaded already stays as it is."""
    if not isinstance(config, Config):
        return load_config(config, options)
    merged = copy.deepcopy(config)
    try:
        merged.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise UserError(f'the options do not fit the config: {error}') from None
    return merged


def prepare(cfg: Config, work_dir: str | Path | None) -> SearchContext:
    """Build all parts but the scorer; the config's default scope is set.

    Raises:
        UserError: parts that do not exist or do not fit each other.
    """
    folder = Path(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(cfg.filename or 'search').stem)
    settings = SearchSettings.read(cfg.get('search'))
    space = _built('space', settings.space, 'student')
    searcher = _built('searcher', settings.searcher, 'run')
    if settings.scorers[0] == 'rank' and not hasattr(searcher, 'plan'):
        raise UserError(
            'the score "rank" compares all candidates with each other, so evolution cannot climb it: take '
            'vfd.Exhaustive or vfd.RandomSearch, or another first score, such as "sum"'
        )
    table = None
    if settings.accuracy is not None:
        table = TASK_UTILS.build({'type': 'vfd.TableScorer', 'space': space, **settings.accuracy})
    batches, unreadable = _batches(cfg, settings, space)
    return SearchContext(cfg, folder, settings, space, searcher, table, _teacher(cfg), batches, unreadable)


def _built(key: str, config: Mapping[str, Any], method: str) -> Any:
    """Build the space or the searcher; one of its methods identifies which it is."""
    kind = config.get('type')
    found = TASK_UTILS.get(kind) if isinstance(kind, str) else None
    if not hasattr(found, method):
        known = [f'vfd.{name}' for name, cls in TASK_UTILS.module_dict.items() if hasattr(cls, method)]
        hint = did_you_mean(str(kind), known)
        raise UserError(
            f'config key search.{key}: type={kind!r} is no {key}{hint}; there are: {", ".join(known)}'
        )
    try:
        return TASK_UTILS.build(dict(config))
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f'config key search.{key}: {kind} does not take these settings: {error}') from error


def _surroundings(device: str) -> dict[str, Any]:
    """Return what else changes the numbers: the kind of device, and the libraries that make and run the networks."""
    chosen = torch.device(device)
    kind = torch.cuda.get_device_name(chosen) if chosen.type == 'cuda' else chosen.type
    installed = compat.status()
    return {'device': kind, 'versions': {name: installed[name] for name in ('torch', 'timm', 'mmpretrain')}}


def _batches(cfg: Config, settings: SearchSettings, space: Any) -> tuple[list[Batch], int]:
    if settings.images == 'noise':
        noise = noise_batches(
            settings.seeds, settings.batch_size, space.input_size, space.num_classes, settings.seed
        )
        return noise, 0
    batches, bad = training_batches(cfg, settings.seeds, settings.batch_size, settings.seed)
    size = tuple(batches[0][0].shape[2:])
    if size != (space.input_size, space.input_size):
        raise UserError(
            f'the training images are {size[0]} x {size[1]} pixels, search.space counts the costs for input_size='
            f'{space.input_size}. Make both the same: the pipeline of train_dataloader, or search.space.input_size.'
        )
    return batches, bad


def _teacher(cfg: Config) -> dict[str, Any]:
    teacher = (cfg.get('model') or {}).get('teacher')
    if teacher is None or 'source' not in teacher:
        raise UserError(
            'a search needs model.teacher with a source: the network that students are to be found for'
        )
    return Config(dict(source=teacher['source']))._cfg_dict.to_dict()['source']
