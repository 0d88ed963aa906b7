"""Search, from a config to a ranking, a picture and the config of the winner."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from vfd.errors import UserError
from vfd.offline.search.judge import Judge
from vfd.offline.search.prepare import SearchContext, prepare, read_config
from vfd.offline.search.progress import SearchProgress
from vfd.offline.search.ranking import SearchResult
from vfd.offline.search.ranking import rank as ranked
from vfd.offline.search.record import ScoreRecord, StoredScores, record_path, record_paths
from vfd.offline.search.report import correlation_rows, failure_lines, print_report, ranking_json
from vfd.offline.search.winner import winner_config
from vfd.offline.step import Step
from vfd.stores import Progress, atomic_write
from vfd.visualization.pareto import draw_pareto
from vfd.visualization.theme import LIGHT


def search(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> SearchResult | None:
    """Rank or search the students of a config's ``search`` for its teacher.

    Run again after an interruption it goes on where it stopped, with the same result.

    Args:
        config: path of a config with ``search`` and ``model.teacher``, or a loaded one.
        work_dir: where the results go; default ``work_dirs/<name of the config>``.
        options: merged over the config, as ``--cfg-options``.
        launcher: ``none``, or ``pytorch`` (torchrun) or ``slurm`` (srun): the ranks then share the candidates.

    Returns:
        What was found; None while other ranks are scoring (the one that ends last writes the ranking).

    Raises:
        UserError: the settings contradict each other, nothing is left within the limits, no candidate can be scored.
    """
    cfg = read_config(config, options)
    step = Step.launched('scoring students', launcher)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        parts = prepare(cfg, work_dir)
        if step.world_size > 1 and (not parts.planned or parts.settings.times):
            raise UserError(
                'ranks share the candidates of vfd.Exhaustive and vfd.RandomSearch, without latencies: evolution goes '
                'from one candidate to the next, and a latency is that of one undisturbed process. Leave --launcher '
                'out.'
            )
        scorer = parts.scorer()
        path = record_path(parts.folder, step.rank, step.world_size)
        with ScoreRecord(path, parts.fingerprint) as record:
            print(parts.described())
            judge = Judge(parts.space, scorer, parts.settings, record)
            begun = time.perf_counter()
            finished = _score(parts, judge, record, step)
            seconds = time.perf_counter() - begun
        if not finished:
            print(f'rank {step.rank} is done; the rank that ends last writes the ranking')
            return None
        result = _result(parts, judge, seconds, {'record': path})
        _write(result, parts)
    return result


def verify_search(
    config: str | Path | Config, work_dir: str | Path | None = None, options: dict[str, Any] | None = None
) -> list[str]:
    """Check what a finished search wrote; nothing is scored.

    Returns:
        One line a fault: records that are damaged, incomplete or of other settings, a ranking or a winner that does not
        follow from them.
    """
    cfg = read_config(config, options)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        parts = prepare(cfg, work_dir)
        ranking, winner = parts.folder / 'ranking.json', parts.folder / 'winner.py'
        if not ranking.is_file() or not record_paths(parts.folder):
            return [f'{parts.folder} holds no finished search']
        try:
            stored = StoredScores(parts.folder, parts.fingerprint)
            judge = Judge(parts.space, None, parts.settings, stored)
            _walk(parts, judge, judge.evaluate)
            result = _result(parts, judge, 0.0, {})
        except UserError as error:
            return [str(error)]
    faults = []
    if ranking.read_text(encoding='utf-8') != _ranking_text(result, parts):
        faults.append(f'{ranking} does not follow from the scores')
    text = _winner_text(result, parts)
    if text is not None and (not winner.is_file() or winner.read_text(encoding='utf-8') != text):
        faults.append(f'{winner} is not the config of the winner')
    return faults


def _score(parts: SearchContext, judge: Judge, record: ScoreRecord, step: Step) -> bool:
    """Score what is this rank's to score; whether everything is scored."""
    known = {name for name, entry in record.entries.items() if 'scores' in entry}
    if not parts.planned:
        with SearchProgress(step, parts.searcher.total(parts.space), known, parts.settings.seeds) as shown:

            def evaluate(candidate: str) -> float:
                score = judge.evaluate(candidate)
                shown.count(candidate)
                return score

            _walk(parts, judge, evaluate)
        return True
    plan = _plan(parts, judge)
    share = [one for one in plan if step.owns(parts.space.graph_key(one))]
    with SearchProgress(step, len(share), known.intersection(share), parts.settings.seeds) as shown:
        for one in share:
            judge.evaluate(one)
            shown.count(one)
    record.refresh()
    if not all('scores' in record.entries.get(one, {}) for one in plan):
        return False
    for one in plan:
        judge.evaluate(one)
    return True


def _plan(parts: SearchContext, judge: Judge) -> list[str]:
    """Return the candidates that will be scored; of a listed space the refused ones count as looked at too."""
    listed = parts.space.candidates()
    total = parts.searcher.total(parts.space)
    with Progress('checking candidates', total if listed is None else len(listed)) as progress:

        def is_feasible(candidate: str) -> bool:
            feasible = judge.is_feasible(candidate)
            if feasible or listed is not None:
                progress.advance(1)
            return feasible

        return parts.searcher.plan(parts.space, is_feasible, random.Random(parts.settings.seed))


def _walk(parts: SearchContext, judge: Judge, evaluate: Callable[[str], float]) -> None:
    """Run the whole search in one process."""
    rng = random.Random(parts.settings.seed)
    history = parts.searcher.run(parts.space, evaluate, judge.is_feasible, rng)
    total = parts.searcher.total(parts.space)
    if not parts.planned and 0 < len(history) < total:
        print(f'{len(history)} of {total}: nothing more can be drawn from the space within the limits')


def _result(parts: SearchContext, judge: Judge, seconds: float, files: dict[str, Path]) -> SearchResult:
    """Rank the scored candidates and collect the report's rows."""
    if not judge.found:
        kinds = ', '.join(f'{count} {kind}' for kind, count in judge.counts().most_common()) or 'none drawn'
        example = next(iter([*judge.failures().values(), *judge.reasons.values()]), '')
        raise UserError(
            f'no candidate is left to rank ({kinds}). {f"For example: {example}. " if example else ""}'
            'Raise the limits, or choose another space or scorer.'
        )
    scorer = parts.settings.scorers[0]
    best = ranked(judge, scorer)
    if parts.table is not None:
        parts.table.check([one.name for one in best])
        for one in best:
            one.accuracy = parts.table.known.get(one.name)
    rows = correlation_rows(best, parts.settings.scorers)
    return SearchResult(best, scorer, rows, dict(judge.counts()), judge.failures(), seconds, files)


def _ranking_text(result: SearchResult, parts: SearchContext) -> str:
    content = ranking_json(result, parts.settings, parts.unreadable)
    return json.dumps(content, indent=1, allow_nan=False) + '\n'


def _winner_text(result: SearchResult, parts: SearchContext) -> str | None:
    """Return the winner's config as text; None where the config does not define the training."""
    if parts.cfg.get('train_cfg') is None:
        return None
    return winner_config(parts.cfg, parts.space.student(result.ranking[0].name))


def _write(result: SearchResult, parts: SearchContext) -> None:
    files = result.files
    files['ranking'], files['picture'] = parts.folder / 'ranking.json', parts.folder / 'pareto.png'
    atomic_write(files['ranking'], _ranking_text(result, parts))
    costs: dict[str, list[float]] = {
        'parameters, M': [one.params / 1e6 for one in result.ranking],
        'multiply-accumulates, M': [one.flops / 1e6 for one in result.ranking],
    }
    if all(one.latency_ms is not None for one in result.ranking):
        costs['latency, ms'] = [one.latency_ms or 0.0 for one in result.ranking]
    values = [one.mean(result.scorer) for one in result.ranking]
    names = [one.name for one in result.ranking]
    accuracies = [one.accuracy for one in result.ranking]
    atomic_write(files['picture'], draw_pareto(names, values, costs, result.scorer, LIGHT, accuracies))
    winner = _winner_text(result, parts)
    if winner is not None:
        files['winner'] = parts.folder / 'winner.py'
        atomic_write(files['winner'], winner)
    print_report(result, parts.settings)
    for line in failure_lines(result, parts.unreadable):
        print(line)
    for name, path in files.items():
        print(f'{name}: {path}')
