"""Search from a config: results, resume, refusals that are counted, mistakes that are named, a winner that trains."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from search_toy import CONFIG, NOISE, ROOT, make_folder, run

from vfd.apis.config import load_config
from vfd.apis.training import train
from vfd.errors import UserError
from vfd.methods.diswot.scoring import KD_LOSSES, METRICS, ZERO_COST, StudentScorer
from vfd.methods.diswot.spaces import NASBench201Space
from vfd.offline import search as api
from vfd.offline.search.record import ScoreRecord
from vfd.offline.search.settings import SIZES, SearchSettings


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


def test_ranking_picture_and_a_winner_that_trains(folder, capsys):
    result = run(folder / 'out', search__batch_size=16, search__measure_latency=True)
    out = capsys.readouterr().out
    means = [one.mean('sum') for one in result.ranking]
    assert len(means) == 8 and means == sorted(means, reverse=True)
    assert all(len(one.scores['sum']) == 2 and one.latency_ms > 0 for one in result.ranking)
    ranking = json.loads(result.files['ranking'].read_text())
    best = ranking['candidates'][0]
    assert (
        best['candidate'] == result.ranking[0].name
        and best['scores']['sum']['values'] == result.ranking[0].scores['sum']
    )
    assert best['params'] > 0 and best['flops'] > 0 and ranking['baselines']['params'] == '2-2-2'
    assert ranking['unreadable_images'] >= 1 and 'image file(s) could not be read' in out
    assert 'params' in out and 'MFLOPs' in out and 'Size alone is a' in out
    assert result.files['picture'].read_bytes()[:4] == b'\x89PNG'

    winner = load_config(result.files['winner'])
    blocks = [int(count) for count in result.ranking[0].name.split('-')]
    assert winner.model.student.blocks == blocks and winner.model.teacher.source.model_name == 'cifar_resnet8'
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 5, 'visualizer.vis_backends': []}
    runner = train(result.files['winner'], folder / 'trained', options=options)
    assert (folder / 'trained').is_dir() and [
        len(getattr(runner.model.student.model, f'layer{i}')) for i in (1, 2, 3)
    ] == blocks


def test_a_killed_search_goes_on_and_ends_as_one_that_was_not(folder, monkeypatch):
    whole = run(folder / 'whole', **NOISE)
    calls = []
    original = ScoreRecord.add

    def killed(self, entry) -> None:
        calls.append(entry['candidate'])
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreRecord, 'add', killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder / 'killed', **NOISE)
    record = folder / 'killed/scores.jsonl'
    record.write_bytes(record.read_bytes()[:-7])  # the last line was not written whole
    scored: list[str] = []
    scores = StudentScorer.scores
    monkeypatch.setattr(StudentScorer, 'scores', lambda self, s: scored.append(str(s)) or scores(self, s))
    again = run(folder / 'killed', **NOISE)
    assert len(scored) == 8 - 2
    assert [(one.name, one.scores) for one in again.ranking] == [
        (one.name, one.scores) for one in whole.ranking
    ]


def test_evolution_resumes_and_the_same_seed_ranks_the_same(folder):
    options = {
        **NOISE,
        'search__space': dict(
            type='vfd.NASBench201Space', num_classes=10, input_size=16, width=4, cells=1, _delete_=True
        ),
        'search__searcher': dict(
            type='vfd.AgingEvolution', budget=12, population=4, tournament=2, _delete_=True
        ),
        'search__limits': dict(flops=4e5, _delete_=True),
        'search__scorers': ['relation'],
    }
    first, second = (run(folder / name, **options) for name in ('a', 'b'))
    assert [(one.name, one.scores) for one in first.ranking] == [
        (one.name, one.scores) for one in second.ranking
    ]
    assert all(one.flops <= 4e5 for one in first.ranking) and first.refused['over the limit of flops'] > 0
    assert [one.name for one in run(folder / 'a', **options).ranking] == [one.name for one in first.ranking]


TINY_CELLS = dict(type='vfd.NASBench201Space', num_classes=10, input_size=16, width=2, cells=1, _delete_=True)
OF_ONE_GRAPH = [  # one convolution and a way through, by another node each
    '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|',
    '|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|',
    '|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|',  # node 1 reaches nothing
]
OTHER = '|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|'


@pytest.fixture
def four_cells(monkeypatch) -> list[str]:
    """A space of four cells, three of which are one network."""
    cells = [OF_ONE_GRAPH[0], OTHER, *OF_ONE_GRAPH[1:]]
    monkeypatch.setattr(NASBench201Space, 'candidates', lambda self: cells)
    return cells


def test_cells_of_one_graph_are_scored_once_and_say_so(folder, four_cells, monkeypatch, capsys):
    scored = []
    scores = StudentScorer.scores
    monkeypatch.setattr(StudentScorer, 'scores', lambda self, s: scored.append(s['cell']) or scores(self, s))
    options = {**NOISE, 'search__space': TINY_CELLS, 'search__scorers': ['relation', 'params']}
    result = run(folder / 'out', **options)
    assert scored == [OF_ONE_GRAPH[0], OTHER]
    assert {one.name: one.same_as for one in result.ranking} == {
        OF_ONE_GRAPH[0]: '', OTHER: '', OF_ONE_GRAPH[1]: OF_ONE_GRAPH[0], OF_ONE_GRAPH[2]: OF_ONE_GRAPH[0],
    }  # fmt: skip
    found = {one.name: one for one in result.ranking}
    first, *others = (found[name] for name in OF_ONE_GRAPH)
    assert all(one.scores['relation'] == first.scores['relation'] for one in others)
    assert found[OTHER].scores['relation'] != first.scores['relation']
    assert others[1].params > first.params and others[1].scores['params'] == [others[1].params]
    places = [result.ranking.index(one) for one in (first, *others)]
    assert sorted(places) == list(range(places[0], places[0] + 3))  # one after the other
    candidates = json.loads(result.files['ranking'].read_text())['candidates']
    assert [one['same_as'] for one in candidates].count(first.name) == 2
    out = capsys.readouterr().out
    assert out.count(f'={places[0] + 1} ') == 2 and '2 of 4 students have the graph of another one' in out
    assert not api.verify_search(
        CONFIG, folder / 'out', {k.replace('__', '.'): v for k, v in options.items()}
    )

    for number in (1, 0):  # ranks agree with one process, whichever is first
        monkeypatch.setenv('RANK', str(number))
        monkeypatch.setenv('WORLD_SIZE', '2')
        merged = {key.replace('__', '.'): value for key, value in options.items()}
        api.search(CONFIG, folder / 'shared', merged, 'pytorch')
    assert (folder / 'shared/ranking.json').read_text() == result.files['ranking'].read_text()


def test_a_record_that_scored_every_cell_by_itself_keeps_its_scores(folder, four_cells, monkeypatch):
    options = {**NOISE, 'search__space': TINY_CELLS, 'search__scorers': ['relation']}
    with monkeypatch.context() as patch:
        patch.setattr(NASBench201Space, 'graph_key', lambda self, candidate: candidate)
        before = run(folder / 'out', **options)
    record = (folder / 'out/scores.jsonl').read_bytes()
    found = {one.name: one.scores for one in before.ranking}
    assert b'same_as' not in record and found[OF_ONE_GRAPH[0]] != found[OF_ONE_GRAPH[2]]
    monkeypatch.setattr(StudentScorer, 'scores', None)
    after = run(folder / 'out', **options)
    assert [(one.name, one.scores) for one in after.ranking] == [
        (one.name, one.scores) for one in before.ranking
    ]
    assert (folder / 'out/scores.jsonl').read_bytes() == record


def test_full_memory_is_not_remembered_of_a_candidate_and_its_faults_are(folder, monkeypatch):
    models = ['test_resnet', 'test_vit', 'test_efficientnet']
    space = dict(type='vfd.TimmSpace', models=models, num_classes=10, input_size=160, _delete_=True)
    options = {
        'search__images': 'noise',
        'search__seeds': 1,
        'search__space': space,
        'search__limits': {'params': 1e9},
    }
    scores = StudentScorer.scores

    def full(self, student):
        if student['model_name'] == 'test_vit':
            raise torch.OutOfMemoryError('CUDA out of memory')
        return scores(self, student)

    monkeypatch.setattr(StudentScorer, 'scores', full)
    options['search__scorers'] = ['relation', 'nwot']
    first = run(folder / 'out', **options)
    assert 'OutOfMemoryError: CUDA out of memory' in first.failures['test_vit']
    assert 'nwot reads the signs' in first.failures['test_efficientnet']
    asked = []
    monkeypatch.setattr(
        StudentScorer, 'scores', lambda self, s: asked.append(s['model_name']) or scores(self, s)
    )
    again = run(folder / 'out', **options)
    assert asked == ['test_vit'] and set(again.failures) == {'test_vit', 'test_efficientnet'}
    assert 'nwot reads the signs' in again.failures['test_vit']


def test_scores_of_another_library_or_device_are_not_mixed(folder, monkeypatch):
    run(folder / 'out', **NOISE)
    monkeypatch.setattr('vfd.compat.status', lambda: dict.fromkeys(('torch', 'timm', 'mmpretrain'), '0.0'))
    with pytest.raises(UserError, match=r"versions\.torch: was '.*', is '0\.0'"):
        run(folder / 'out', **NOISE)


def test_the_released_evolution_scores_what_it_never_admitted(folder):
    searcher = dict(
        type='vfd.AgingEvolution', budget=8, population=3, tournament=2, quirk='released', _delete_=True
    )
    result = run(folder / 'out', **NOISE, search__searcher=searcher, search__limits=dict(params=90e3))
    assert len(result.ranking) > 1 and any(one.params > 90e3 for one in result.ranking)


def test_size_is_a_score_and_needs_no_network(folder, monkeypatch, capsys):
    monkeypatch.setattr(StudentScorer, '_scores', None)
    rows = [f'{a}-{b}-{c},{50 + a + 2 * b + 3 * c}' for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    (folder / 'known.csv').write_text('\n'.join(['candidate,top1', *rows]))
    accuracy = dict(file='known.csv', column='top1')
    for size in ('params', 'flops'):
        result = run(folder / size, **NOISE, search__scorers=[size], search__accuracy=accuracy)
        sizes = [getattr(one, size) for one in result.ranking]
        assert sizes == sorted(sizes, reverse=True) and result.scorer == size
        assert [row['score'] for row in result.correlations] == list(dict.fromkeys([size, 'params', 'flops']))
    assert f'best first by {size}' in capsys.readouterr().out


def test_evolution_may_show_the_combined_rank_beside_what_it_climbs(folder):
    searcher = dict(type='vfd.AgingEvolution', budget=6, population=3, tournament=2, _delete_=True)
    result = run(folder / 'out', **NOISE, search__searcher=searcher, search__scorers=['sum', 'rank'])
    assert all(len(one.scores['rank']) == 1 for one in result.ranking) and result.scorer == 'sum'


def test_options_are_merged_over_a_loaded_config(folder):
    cfg = load_config(CONFIG)
    result = api.search(
        cfg, folder / 'out', {'search.images': 'noise', 'search.seeds': 1, 'search.scorers': ['params']}
    )
    assert result.scorer == 'params'
    assert 'images' not in cfg.search and cfg.search.seeds == 2
    with pytest.raises(UserError, match='options do not fit'):
        api.search(cfg, folder / 'out', {'search.space.depths.x': 1})


def test_a_record_of_other_settings_is_refused(folder):
    run(folder / 'out', **NOISE)
    with pytest.raises(UserError, match=r"begun with other settings:\s+init: was 'gaussian', is 'default'"):
        run(folder / 'out', **NOISE, search__init='default')


def test_what_cannot_be_built_or_compared_is_counted_and_the_rest_is_ranked(folder, capsys):
    space = dict(
        type='vfd.TimmSpace', models=['test_resnet', 'test_vit', 'test_resnett', 'test_efficientnet'],
        num_classes=10, input_size=160, block_args=dict(nothing=1), _delete_=True,
    )  # fmt: skip
    options = {
        **NOISE,
        'search__space': space,
        'search__scorers': ['relation'],
        'search__limits': {'params': 1e9},
    }
    with pytest.raises(UserError, match='no candidate is left to rank'):
        run(folder / 'none', **options)
    space.pop('block_args')
    result = run(folder / 'some', **options)
    assert {one.name for one in result.ranking} == {'test_resnet', 'test_vit', 'test_efficientnet'}
    assert (
        result.refused == {'unknown': 1} and 'did you mean "test_resnet"' in result.failures['test_resnett']
    )
    assert 'not ranked: unknown' in capsys.readouterr().out

    semantic = run(folder / 'widths', **{**options, 'search__scorers': ['sum']})
    assert [one.name for one in semantic.ranking] == ['test_vit']  # as wide as the teacher
    assert semantic.refused == {'unknown': 1, 'failed': 2}
    assert 'Score with "relation"' in semantic.failures['test_resnet']


def test_any_config_with_sampled_fields(folder):
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64),
    )
    fields = {'backbone.depth': [18, 34], 'head.in_channels': [64, 32]}  # 32 does not fit
    space = dict(
        type='vfd.ConfigSpace', student=student, fields=fields, num_classes=10, input_size=16, _delete_=True
    )
    result = run(folder / 'out', **NOISE, search__space=space, search__limits=dict(params=1e9))
    assert len(result.ranking) == 2 and result.refused == {'failed': 2}
    winner = load_config(result.files['winner']).model.student
    chosen = json.loads(result.ranking[0].name)
    assert winner.backbone.depth == chosen['backbone.depth'] and winner.type == 'mmpretrain.ImageClassifier'


def test_dead_cells_are_counted(folder):
    options = {
        **NOISE,
        'search__space': dict(
            type='vfd.NASBench201Space', num_classes=10, input_size=16, width=2, cells=1, _delete_=True
        ),
        'search__searcher': dict(type='vfd.RandomSearch', budget=30, _delete_=True),
        'search__scorers': ['relation'],
        'search__limits': {'params': 1e9},
        'search__seed': 1,
    }
    result = run(folder / 'out', **options)
    assert len(result.ranking) == 30 and result.refused['dead cell'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(search__limits=dict(params=1.0)), 'no candidate is left to rank .8 over the limit of params'),
        (dict(search__limits=dict(latency_ms=1e-9)), 'over the limit of latency_ms'),
        (dict(search__limits=dict(flop=1.0)), '"flop" is not one of'),
        (dict(search__scorer='sum'), '"scorer" is not known there .did you mean "scorers"'),
        (dict(search__scorers=['summ']), 'scorer "summ" is unknown'),
        (dict(search__scorers=[]), 'name at least one'),
        (dict(search__images='nose'), "'nose' is not one of"),
        (dict(search__seeds=0), 'seeds must be at least 1'),
        (
            dict(search__searcher=dict(type='vfd.AgingEvolution', budget=4), search__scorers=['rank']),
            '"rank" compares',
        ),
        (dict(search__space__num_classes=20), 'labels from . to 1., but the network has 10 classes'),
        (
            dict(search__space=dict(type='vfd.CifarResnetSpace', _delete_=True)),
            'did you mean "vfd.CifarResNetSpace"',
        ),
        (
            dict(search__space=dict(type='vfd.Exhaustive', _delete_=True)),
            r"space: type='vfd.Exhaustive' is no space; .*",
        ),
        (dict(search__space=dict(models=['x'], _delete_=True)), 'space: type=None is no space'),
        (
            dict(search__searcher__budget=4),
            r'searcher: vfd.Exhaustive does not take these settings: .*no arguments',
        ),
        (dict(search__space__depths=['a']), r'space: vfd.CifarResNetSpace does not take these settings'),
        (dict(search__limits=dict(params='1M')), "limits.params: '1M' is no positive number"),
        (dict(search__limits=dict(flops=-1)), 'limits.flops: -1 is no positive number'),
        (dict(search__limits=3), 'search.limits: 3 is not of type dict'),
        (dict(search__seeds=1.5), 'search.seeds: 1.5 is not of type int'),
        (dict(search__seed=-1), 'seed not negative'),
        (dict(search__device='gpu'), r'search.device: "gpu" cannot be used'),
        (dict(search__device='meta'), r'search.device: "meta" cannot be used'),
        (dict(search__accuracy=dict(path='x')), "dict.file='accuracy.csv'"),
    ],
)
def test_mistakes_are_named(folder, options, message):
    with pytest.raises(UserError, match=message):
        run(folder / 'out', **{**NOISE, **options})


def test_labels_that_are_no_class_are_named(folder):
    with pytest.raises(UserError, match=r'labels from . to [6-9], but the network has 5 classes'):
        run(
            folder / 'out',
            search__seeds=1,
            model__teacher__source__num_classes=5,
            search__space__num_classes=5,
        )


def test_the_plan_and_the_refusals_speak_of_the_images_that_there_are(folder, capsys):
    run(folder / 'out', search__seeds=1, search__batch_size=64)
    assert '1 seed(s) x 12 images (train; 64 were requested)' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'images are 64 x 64 pixels, search.space counts .* input_size=32'):
        run(folder / 'other', search__space__input_size=32)


def test_plan_and_progress_count_what_is_refused_and_tell_the_time(folder, capsys):
    options = {**NOISE, 'search__limits': dict(params=100e3)}
    run(folder / 'out', **options)
    out, err = capsys.readouterr()
    assert re.search(r'scoring students: 3 items, .* on disk, about \d+ s to go', out)
    assert 'checking candidates: 8/8' in err and 'scoring students: 3/3' in err
    run(folder / 'out', **options)
    out, err = capsys.readouterr()
    assert 'scoring students: 3 items, 3 already done' in out
    assert out.count('scoring students') == 1 and 'scoring students' not in err


def test_the_page_lists_every_key():
    page = (ROOT / 'docs/how-to/search.md').read_text()
    assert set(re.findall(r'^\| `(\w+)` \|', page, re.MULTILINE)) == set(SearchSettings.__dataclass_fields__)
    listed = page.split('| `scorers` |')[1].split('\n')[0]
    assert {*METRICS, *KD_LOSSES, *ZERO_COST, *SIZES, 'rank'} <= set(re.findall(r'`(\w+)`', listed))


def test_a_config_without_a_search_or_a_teacher(folder):
    with pytest.raises(UserError, match='has no search=dict'):
        api.search(ROOT / 'configs/diswot/diswot_tiny_1xb8-2e_folder.py', folder / 'out')
    cfg = load_config(CONFIG)
    cfg.model.pop('teacher')
    with pytest.raises(UserError, match=r'model.teacher with a source'):
        api.search(cfg, folder / 'out')


def test_the_command(folder, monkeypatch, capsys):
    arguments = [str(CONFIG), '--work-dir', 'out', '--cfg-options', 'search.images=noise', 'search.seeds=1']
    for more, code in (([], 0), (['--verify'], 0), (['search.space.num_classes=20'], 2)):
        monkeypatch.setattr(sys, 'argv', ['tools/search.py', *arguments, *more])
        with pytest.raises(SystemExit) as leave:
            runpy.run_path(str(ROOT / 'tools/search.py'), run_name='__main__')
        assert (leave.value.code or 0) == code
    monkeypatch.setattr(
        sys, 'argv', ['tools/search.py', *arguments, '--max-params', '8e4', '--max-flops=1e9']
    )
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools/search.py'), run_name='__main__')
    assert not leave.value.code
    ranking = json.loads(Path('out/ranking.json').read_text())
    assert ranking['settings']['limits'] == {'params': 8e4, 'flops': 1e9}
    assert all(one['params'] <= 8e4 for one in ranking['candidates']) and ranking['refused']
    captured = capsys.readouterr()
    assert 'mmengine' not in captured.out + captured.err  # no line a parameter and candidate
    assert 'ranking and winner follow from the scores' in captured.out
    assert 'winner: out/winner.py' in captured.out and 'Traceback' not in captured.err


def test_the_demo_ranks_networks_of_timm(folder, monkeypatch, capsys):
    students = ['--students', 'test_resnet', 'test_efficientnet', '--teacher', 'test_byobnet', '--size', '64']
    script = ROOT / 'demo/search_demo.py'
    for images, code in (('data/folder/val', 0), ('data/nothing', 2)):
        monkeypatch.setattr(sys, 'argv', [str(script), images, *students, '--seeds', '1', '--out', 'demo'])
        with pytest.raises(SystemExit) as leave:
            runpy.run_path(str(script), run_name='__main__')
        assert (leave.value.code or 0) == code
    table = str(ROOT / 'tests/golden/data/diswot/nb201_accuracy.npz')
    monkeypatch.setattr(sys, 'argv', [str(script), '--table', table])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(script), run_name='__main__')
    assert not leave.value.code
    captured = capsys.readouterr()
    assert (
        'best of 15625 cells: 73.5' in captured.out
        and 'AgingEvolution, 300 cells, 20 seeds: 73.4' in captured.out
    )
    assert '2 students, best first by relation' in captured.out and 'Traceback' not in captured.err
    assert (folder / 'demo/pareto.png').is_file() and not (folder / 'demo/winner.py').exists()
