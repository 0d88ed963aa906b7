"""The ``search`` part of a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from vfd.errors import UserError, did_you_mean

SIZES = ('params', 'flops')  # scores that need no network: the largest is the best
LIMITS = ('flops', 'params', 'latency_ms')


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search.

    Attributes:
        space: config of a search space (``vfd.CifarResNetSpace``, ``vfd.NASBench201Space``, ``vfd.PlainNetSpace``,
            ``vfd.TimmSpace``, ``vfd.ConfigSpace``).
        scorers: names of scores; the search maximises the first one. ``rank`` is the mean rank of the semantic and the
            relation metric, which evolution cannot climb; ``params`` and ``flops`` are the size.
        searcher: config of a searcher (``vfd.Exhaustive``, ``vfd.RandomSearch``, ``vfd.AgingEvolution``,
            ``vfd.Evolution``).
        seeds: draws of the weights, each with a batch of its own; scores are their means.
        seed: of the searcher, the batches and the first draw.
        init: ``gaussian`` (published) or ``default``, the libraries' own initialisation.
        images: ``train`` takes batches of ``train_dataloader``, ``noise`` standard normal numbers. The choice changes
            the relation metric drastically.
        batch_size: images a batch; 64 as published.
        limits: ``flops`` (multiply-accumulates of one image), ``params`` and ``latency_ms`` (of one image on this
            device): upper bounds.
        accuracy: ``dict(file=..., column=...)``: known accuracies (.csv, .csv.gz, .npz) that the scores are compared
            with; they do not take part in the search.
        measure_latency: measure it although nothing limits it.
        device: where networks are scored and timed.
    """

    space: dict[str, Any]
    scorers: tuple[str, ...] = ('sum',)
    searcher: dict[str, Any] = field(default_factory=lambda: {'type': 'vfd.Exhaustive'})
    seeds: int = 3
    seed: int = 0
    init: str = 'gaussian'
    images: str = 'train'
    batch_size: int = 64
    limits: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, str] | None = None
    measure_latency: bool = False
    device: str = 'cpu'

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> SearchSettings:
        """Read the config's ``search``.

        Raises:
            UserError: it is not there, has unknown keys, or has values that make no sense.
        """
        if config is None:
            raise UserError('the config has no search=dict(space=..., ...): see configs/diswot/search_*.py')
        if not isinstance(config, Mapping):
            raise UserError(f'config key search: {config!r} is no dict')
        names = [one.name for one in fields(cls)]
        for name in config:
            if name not in names:
                raise UserError(f'config key search: "{name}" is not known there{did_you_mean(name, names)}')
        if 'space' not in config:
            raise UserError("config key search: space=dict(type='vfd.CifarResNetSpace') is missing")
        given = dict(config)
        scorers = given.get('scorers', ('sum',))
        given['scorers'] = tuple(map(str, [scorers] if not isinstance(scorers, (list, tuple)) else scorers))
        settings = cls(**given)
        settings._check()
        return settings

    def _check(self) -> None:
        kinds = {
            'space': Mapping, 'searcher': Mapping, 'limits': Mapping, 'seeds': int, 'seed': int, 'batch_size': int,
            'init': str, 'images': str, 'device': str, 'measure_latency': bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                expected = 'dict' if kind is Mapping else kind.__name__
                raise UserError(f'config key search.{name}: {value!r} is not of type {expected}')
        for name, limit in self.limits.items():
            if name not in LIMITS:
                raise UserError(f'config key search.limits: "{name}" is not one of {list(LIMITS)}')
            if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
                raise UserError(f'config key search.limits.{name}: {limit!r} is no positive number')
        if self.images not in ('train', 'noise'):
            raise UserError(f'config key search.images: {self.images!r} is not one of "train", "noise"')
        if self.seeds < 1 or self.batch_size < 2 or self.seed < 0:
            raise UserError(
                'config key search: seeds must be at least 1, batch_size at least 2, and seed not negative'
            )
        table = self.accuracy
        if table is not None and (not isinstance(table, Mapping) or set(table) != {'file', 'column'}):
            raise UserError("config key search.accuracy: write dict(file='accuracy.csv', column='top1')")
        if not self.scorers:
            raise UserError("config key search.scorers: name at least one, such as 'sum'")
        try:
            torch.zeros(1, device=self.device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f'config key search.device: "{self.device}" cannot be used: {reason}') from None

    @property
    def computed_scorers(self) -> tuple[str, ...]:
        """The scores that are computed of a network; ``rank`` comes from two of them."""
        wanted = [name for name in self.scorers if name not in ('rank', *SIZES)]
        if 'rank' in self.scorers:
            wanted += ['semantic', 'relation']
        return tuple(dict.fromkeys(wanted))

    @property
    def times(self) -> bool:
        """Whether latencies are measured."""
        return self.measure_latency or 'latency_ms' in self.limits
