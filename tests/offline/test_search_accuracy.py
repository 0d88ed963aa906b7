"""Known accuracies beside scores."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from search_toy import CONFIG, NOISE, ROOT, make_folder, run

from vfd.apis.config import load_config
from vfd.errors import MissingFileError, UserError
from vfd.methods.diswot.table import TableScorer
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
    assert np.isfinite(table['sum']['tau_at_params']) and 1 <= table['sum']['best_rank_at_top'] <= 8
    out = capsys.readouterr().out
    assert 'tau at params' in out and 'baselines that a score has to beat' in out
    with pytest.raises(UserError, match=r'no column "top2" .did you mean "top1"'):
        run(folder / 'other', **NOISE, search__accuracy=dict(file='known.csv', column='top2'))
    with pytest.raises(MissingFileError, match=r'missing.csv'):
        run(folder / 'other', **NOISE, search__accuracy=dict(file='missing.csv', column='x'))


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
