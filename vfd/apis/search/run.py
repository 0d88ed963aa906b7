"""Search, from a config to a ranking, a picture and the config of the winner."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from vfd.apis.config import load_config
from vfd.apis.search.batches import Batch, digest, noise_batches, training_batches
from vfd.apis.search.judge import Candidate, Judge
from vfd.apis.search.ranking import rank
from vfd.apis.search.record import ScoreRecord
from vfd.apis.search.report import correlation_rows, failure_lines, print_report, ranking_json
from vfd.apis.search.settings import SearchSettings
from vfd.apis.search.winner import winner_config
from vfd.errors import UserError, did_you_mean
from vfd.registry import TASK_UTILS
from vfd.stores import Plan, Progress, atomic_write
from vfd.visualization.pareto import draw_pareto
from vfd.visualization.theme import LIGHT


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        ranking: candidates, best first.
        scorer: the score that they are ranked by.
        correlations: rows of the table of correlations; empty where no accuracy is known.
        refused: kind of refusal -> how many candidates.
        failures: candidate that could not be built or scored -> why.
        seconds: of scoring in this run.
        files: what was written.
    """

    ranking: list[Candidate]
    scorer: str
    correlations: list[dict[str, Any]]
    refused: dict[str, int]
    failures: dict[str, str]
    seconds: float
    files: dict[str, Path]


def search(
    config: str | Path | Config, work_dir: str | Path | None = None, options: dict[str, Any] | None = None
) -> SearchResult:
    """Rank or search the students of a config's ``search`` for its teacher.

    Run again after an interruption it goes on where it stopped, with the same result.

    Args:
        config: path of a config with ``search`` and ``model.teacher``, or a loaded one.
        work_dir: where the results go; default ``work_dirs/<name of the config>``.
        options: merged over the config, as ``--cfg-options``.

    Raises:
        UserError: the settings contradict each other, nothing is left within the limits, no candidate can be scored.
    """
    cfg = _merged(config, options) if isinstance(config, Config) else load_config(config, options)
    folder = Path(work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(cfg.filename or 'search').stem)
    settings = SearchSettings.read(cfg.get('search'))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        space, searcher = (
            _built('space', settings.space, 'student'),
            _built('searcher', settings.searcher, 'run'),
        )
        if settings.scorers[0] == 'rank' and settings.searcher['type'].rpartition('.')[2] not in (
            'Exhaustive',
            'RandomSearch',
        ):
            raise UserError(
                'the score "rank" compares all candidates with each other, so evolution cannot climb it: take '
                'vfd.Exhaustive or vfd.RandomSearch, or another first score, such as "sum"'
            )
        table: Any = settings.accuracy and TASK_UTILS.build(
            {'type': 'vfd.TableScorer', 'space': space, **settings.accuracy}
        )
        batches, bad = _batches(cfg, settings, space)
        teacher = _teacher(cfg)
        scorer: Any = TASK_UTILS.build(
            {'type': 'vfd.StudentScorer'},
            default_args={
                'teacher': teacher,
                'scorers': settings.computed_scorers,
                'batches': batches,
                'seeds': [settings.seed + i for i in range(settings.seeds)],
                'init': settings.init,
                'device': settings.device,
            },
        )
        fingerprint = {
            'space': settings.space, 'teacher': teacher, 'scorers': list(settings.computed_scorers),
            'init': settings.init, 'images': digest(batches), 'seeds': settings.seeds, 'seed': settings.seed,
            **_surroundings(settings.device),
        }  # fmt: skip
        with ScoreRecord(folder / 'scores.jsonl', fingerprint) as record:
            print(_described(settings, batches, record))
            judge, seconds = _run(space, searcher, scorer, settings, record)
        best = rank(judge, settings.scorers[0])
        if table:
            table.check([one.name for one in best])
            for one in best:
                one.accuracy = table.known.get(one.name)
        files = {'record': folder / 'scores.jsonl'}
        rows = correlation_rows(best, settings.scorers)
        result = SearchResult(
            best, settings.scorers[0], rows, dict(judge.counts()), judge.failures(), seconds, files
        )
        _write(result, cfg, settings, space, folder, bad)
    return result


def _merged(config: Config, options: dict[str, Any] | None) -> Config:
    """A loaded config with the options, itself unchanged."""
    merged = copy.deepcopy(config)
    try:
        merged.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise UserError(f'the options do not fit the config: {error}') from None
    return merged


def _built(key: str, config: Mapping[str, Any], method: str) -> Any:
    """The space or the searcher; what it is tells one of its methods."""
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
    """What else changes the numbers: the kind of device, and the libraries that make and run the networks."""
    chosen = torch.device(device)
    kind = torch.cuda.get_device_name(chosen) if chosen.type == 'cuda' else chosen.type
    return {'device': kind, 'versions': {name: version(name) for name in ('torch', 'timm', 'mmpretrain')}}


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


def _described(settings: SearchSettings, batches: list[Batch], record: ScoreRecord) -> str:
    counts = sorted({len(images) for images, _ in batches})
    images = ' to '.join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    fewer = f'; {settings.batch_size} were asked for' if counts != [settings.batch_size] else ''
    return (
        f'{", ".join(settings.scorers)}: {settings.seeds} seed(s) x {images} images ({settings.images}{fewer}), '
        f'{settings.init} weights; scores: {record.path}'
    )


def _run(
    space: Any, searcher: Any, scorer: Any, settings: SearchSettings, record: ScoreRecord
) -> tuple[Judge, float]:
    total = searcher.total(space)
    done = sum('scores' in entry for entry in record.entries.values())
    print(Plan('scoring students', total, min(done, total), 200 * settings.seeds, None))
    begun = time.perf_counter()
    with Progress('scoring students', total) as progress:
        judge = Judge(space, scorer, settings, record, lambda: progress.advance(1))
        history = searcher.run(space, judge.evaluate, judge.admit, random.Random(settings.seed))
    if 0 < len(history) < total:
        print(f'{len(history)} of {total}: nothing more can be drawn from the space within the limits')
    if not judge.found:
        kinds = ', '.join(f'{count} {kind}' for kind, count in judge.counts().most_common()) or 'none drawn'
        example = next(iter([*judge.failures().values(), *judge.reasons.values()]), '')
        raise UserError(
            f'no candidate is left to rank ({kinds}). {f"For example: {example}. " if example else ""}'
            'Raise the limits, or choose another space or scorer.'
        )
    return judge, time.perf_counter() - begun


def _write(
    result: SearchResult, cfg: Config, settings: SearchSettings, space: Any, folder: Path, bad: int
) -> None:
    files = result.files
    files['ranking'], files['picture'] = folder / 'ranking.json', folder / 'pareto.png'
    atomic_write(
        files['ranking'], json.dumps(ranking_json(result, settings, bad), indent=1, allow_nan=False) + '\n'
    )
    costs: dict[str, list[float]] = {
        'parameters, M': [one.params / 1e6 for one in result.ranking],
        'multiply-accumulates, M': [one.flops / 1e6 for one in result.ranking],
    }
    if all(one.latency_ms is not None for one in result.ranking):
        costs['latency, ms'] = [one.latency_ms or 0.0 for one in result.ranking]
    values = [one.mean(result.scorer) for one in result.ranking]
    names = [one.name for one in result.ranking]
    atomic_write(files['picture'], draw_pareto(names, values, costs, result.scorer, LIGHT))
    if cfg.get('train_cfg') is not None:  # a config that says how to train
        files['winner'] = folder / 'winner.py'
        atomic_write(files['winner'], winner_config(cfg, space.student(result.ranking[0].name)))
    print_report(result, settings)
    for line in failure_lines(result, bad):
        print(line)
    for name, path in files.items():
        print(f'{name}: {path}')
