"""Searches that ranks share, and the check of finished ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_toy import CONFIG, NOISE, make_folder, run

from vfd.errors import UserError
from vfd.methods.diswot.scoring import StudentScorer
from vfd.offline import search as api


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


def ranks(monkeypatch, folder: Path, number: int, world_size: int, options: dict):
    monkeypatch.setenv('RANK', str(number))
    monkeypatch.setenv('WORLD_SIZE', str(world_size))
    return api.search(CONFIG, folder, {k.replace('__', '.'): v for k, v in options.items()}, 'pytorch')


@pytest.mark.parametrize('searcher', [dict(type='vfd.Exhaustive'), dict(type='vfd.RandomSearch', budget=5)])
def test_ranks_share_a_search_and_the_last_one_ranks(folder, monkeypatch, searcher):
    options = {**NOISE, 'search__searcher': searcher}
    alone = run(folder / 'alone', **options)
    scored: list[str] = []
    scores = StudentScorer.scores
    monkeypatch.setattr(StudentScorer, 'scores', lambda self, s: scored.append(str(s)) or scores(self, s))
    results = [ranks(monkeypatch, folder / 'shared', number, 3, options) for number in (2, 0, 1)]
    assert results[:2] == [None, None] and not (folder / 'shared/scores.jsonl').exists()
    assert len(scored) == len(set(scored)) == len(alone.ranking)
    text = (folder / 'alone/ranking.json').read_text()
    assert (folder / 'shared/ranking.json').read_text() == text
    again = run(folder / 'shared', **options)  # any number of ranks goes on with what there is
    assert len(scored) == len(alone.ranking) and len(again.ranking) == len(alone.ranking)
    assert (folder / 'shared/ranking.json').read_text() == text


def test_what_ranks_cannot_share_is_refused(folder, monkeypatch):
    evolution = dict(type='vfd.AgingEvolution', budget=4, population=2, tournament=2, _delete_=True)
    for more in (dict(search__searcher=evolution), dict(search__measure_latency=True)):
        with pytest.raises(UserError, match='ranks share the candidates of'):
            ranks(monkeypatch, folder / 'out', 0, 2, {**NOISE, **more})


def test_a_finished_search_is_verified(folder):
    options = {key.replace('__', '.'): value for key, value in NOISE.items()}
    assert api.verify_search(CONFIG, folder / 'out', options) == [
        f'{folder / "out"} holds no finished search'
    ]
    files = run(folder / 'out', **NOISE).files

    def faults(**more) -> str:
        return '; '.join(api.verify_search(CONFIG, folder / 'out', {**options, **more}))

    assert faults() == ''
    assert 'begun with other settings' in faults(**{'search.init': 'default'})
    for name, change, message in (
        (
            'ranking',
            lambda data: data.replace(b'"rank": 1,', b'"rank": 2,'),
            'does not follow from the scores',
        ),
        ('winner', lambda data: data.replace(b'blocks', b'block5'), 'is not the config of the winner'),
        ('record', lambda data: data.replace(b'"sum": [-0.', b'"sum": [-1.', 1), 'is damaged'),
        ('record', lambda data: b''.join(data.splitlines(True)[:-1]), 'the record lacks'),
    ):
        before = files[name].read_bytes()
        assert change(before) != before
        files[name].write_bytes(change(before))
        assert message in faults()
        files[name].write_bytes(before)
    assert faults() == ''
