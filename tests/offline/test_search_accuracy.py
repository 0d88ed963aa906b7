"""Known accuracies beside scores."""

from __future__ import annotations

import json
import random
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from search_toy import CONFIG, NOISE, ROOT, make_folder, run

from vfd.apis.config import load_config
from vfd.errors import MissingFileError, UserError
from vfd.methods.diswot.table import TableScorer
from vfd.offline.search import SearchResult, report
from vfd.offline.search.judge import Candidate
from vfd.offline.search.report import correlation_rows, print_report
from vfd.offline.search.settings import SearchSettings
from vfd.registry import TASK_UTILS


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


def test_known_accuracies_are_compared_with_scores_and_size(folder, capsys):
    rows = [f'{a},{b},{c},{50 + a + 2 * b + 3 * c}' for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    (folder / 'known.csv').write_text('\n'.join(['depth1,depth2,depth3,top1', *rows]))
    accuracy = dict(file='known.csv', column='top1')
    result = run(folder / 'out', **NOISE, search__accuracy=accuracy, search__scorers=['rank', 'sum'])
    table = {row['score']: row for row in result.correlations}
    assert set(table) == {'rank', 'sum', 'params', 'flops'} and result.scorer == 'rank'
    assert table['params']['tau']['mean'] > 0.8 and np.isnan(table['params']['tau_at_params'])
    low, high = table['params']['tau_at_flops_interval']
    assert (np.isnan(low) and np.isnan(high)) or low <= table['params']['tau_at_flops'] <= high
    assert table['params']['tau_at_params_interval'] is None
    assert np.isfinite(table['sum']['tau_at_params']) and 1 <= table['sum']['best_rank_at_top'] <= 8
    out = capsys.readouterr().out
    assert 'tau at params' in out and 'baselines that a score has to beat' in out
    with pytest.raises(UserError, match=r'no column "top2" .did you mean "top1"'):
        run(folder / 'other', **NOISE, search__accuracy=dict(file='known.csv', column='top2'))
    with pytest.raises(MissingFileError, match=r'missing.csv'):
        run(folder / 'other', **NOISE, search__accuracy=dict(file='missing.csv', column='x'))


def test_intervals_are_those_of_the_bootstrap():
    rng = np.random.default_rng(0)
    found = [
        Candidate(
            f'{i:02d}',
            flops=0.0,
            params=float(size),
            scores={'sum': [size + skill]},
            accuracy=size + 2 * skill,
        )
        for i, (size, skill) in enumerate(rng.normal(size=(40, 2)))
    ]
    row, *_ = correlation_rows(found, ['sum'])
    low, high = row['tau_at_params_interval']
    assert low < row['tau_at_params'] < high and low > 0.3 and high - low < 0.5
    assert row['tau_at_flops_interval'] is None  # all have the same


def test_tables_do_not_cut_names(monkeypatch, capsys):
    names = [f'|nor_conv_3x3~0|+|nor_conv_3x3~0|none~{i}|+|none~0|none~1|nor_conv_3x3~2|' for i in range(6)]
    scorers = ['sum', 'semantic', 'relation', 'nwot', 'synflow_zennas', 'gradnorm_zennas']
    found = [
        Candidate(name, 1e6 + i, 1e6 + i, 1.0, {s: [i - 0.123456, i + 0.1] for s in scorers}, i % 4)
        for i, name in enumerate(names)
    ]
    result = SearchResult(found, 'sum', correlation_rows(found, scorers), {}, {}, 0.0, {})
    settings = SearchSettings(space={}, scorers=tuple(scorers), measure_latency=True)
    print_report(result, settings)
    out = capsys.readouterr().out
    assert all(name in out for name in names) and '…' not in out
    monkeypatch.setattr(report, 'Console', lambda **given: Console(force_terminal=True, width=100))
    print_report(result, settings)  # a terminal that is too narrow folds
    assert '…' not in capsys.readouterr().out


def test_samples_of_a_finished_search_are_compared(folder, monkeypatch, capsys):
    rows = [f'{a}-{b}-{c},{50 + a + 2 * b + 3 * c}' for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    (folder / 'known.csv').write_text('\n'.join(['candidate,top1', *rows]))
    accuracy = dict(file='known.csv', column='top1')
    result = run(folder / 'out', **NOISE, search__accuracy=accuracy, search__scorers=['relation', 'nwot'])
    capsys.readouterr()
    script, ranking = str(ROOT / 'benchmarks/rank_samples.py'), str(result.files['ranking'])
    for arguments, code in ((['--size', '6', '--samples', '4'], 0), (['--size', '8'], 2)):
        monkeypatch.setattr(sys, 'argv', [script, ranking, *arguments])
        try:
            runpy.run_path(script, run_name='__main__')
        except SystemExit as leave:
            assert leave.code == code
        else:
            assert code == 0
    captured = capsys.readouterr()
    assert '8 students; samples: 4 of 6' in captured.out and 'the ranking has 8 students' in captured.err
    (tau,) = (row['tau']['mean'] for row in result.correlations if row['score'] == 'nwot')
    (line, *_) = (line for line in captured.out.splitlines() if line.startswith('| nwot'))
    assert f'| {tau:.2f} [' in line and ' of 4 |' in line
    assert 'ahead of relation' in captured.out


def test_accuracies_may_be_known_of_some_and_not_of_none(folder, capsys):
    (folder / 'some.csv').write_text('candidate,top1\n1-1-1,50\n1-1-2,51\n1-2-1,\n2-1-1,nan\n')
    result = run(folder / 'out', **NOISE, search__accuracy=dict(file='some.csv', column='top1'))
    assert {one.name for one in result.ranking if one.accuracy is not None} == {'1-1-1', '1-1-2'}
    out = capsys.readouterr().out
    assert 'The accuracies of 2 of 8 students are known.' in out and 'Fewer than 5 accuracies' in out
    for text, message in (
        (
            'candidate,top1\n3-1-1,50\n',
            r'accuracy of none of the candidates. It has 3-1-1; the space has 1-1-1',
        ),
        ('candidate,top1\n1-1-1,good\n', 'is no table of accuracies'),
        ('\x00', 'cannot be read as a table|none of the candidates'),
    ):
        (folder / 'bad.csv').write_text(text)
        with pytest.raises(UserError, match=message):
            run(folder / 'other', **NOISE, search__accuracy=dict(file='bad.csv', column='top1'))


def test_what_is_no_number_is_null_in_the_ranking(folder, capsys):
    """Equal accuracies have no correlation with anything."""
    rows = [f'{a}-{b}-{c},50' for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    (folder / 'equal.csv').write_text('\n'.join(['candidate,top1', *rows]))
    result = run(folder / 'out', **NOISE, search__accuracy=dict(file='equal.csv', column='top1'))
    text = result.files['ranking'].read_text()
    assert 'NaN' not in text and json.loads(text)['correlations'][0]['tau']['mean'] is None
    assert 'nan' not in capsys.readouterr().out


@pytest.mark.parametrize(
    'name', [path.stem for path in CONFIG.parent.glob('search_*.py') if re.search('s0|nb201', path.stem)]
)
def test_searches_of_spaces_with_known_accuracies_are_compared_with_them(name):
    settings = SearchSettings.read(load_config(CONFIG.parent / f'{name}.py').search)
    space = TASK_UTILS.build(dict(settings.space))
    table = TableScorer(space, ROOT / settings.accuracy['file'], settings.accuracy['column'])
    rng = random.Random(0)
    assert all(table(space.random(rng)) > 0 for _ in range(20)) and settings.seeds >= 3
