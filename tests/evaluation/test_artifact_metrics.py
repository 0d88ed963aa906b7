"""Artifact metrics: planted outliers, percentiles, correlation; and the tool that reports them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vfd.errors import MissingFileError, UserError
from vfd.evaluation import HeatMapCorrelation, cosines, pearson, token_norms, worst_cosines
from vfd.methods.ph_reg.artifacts import analyse_artifacts, print_table

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/ph_reg').glob('ph-reg_*tiny*.py'))


@pytest.fixture
def tokens():
    return torch.randn(3, 64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_planted_outliers_are_counted_on_their_side(tokens):
    tokens[0, :2] *= 20
    tokens[1, :3] *= 0.001
    spread = token_norms(tokens)
    assert spread.high.tolist() == [2, 0, 0] and spread.low[0] == 0
    narrow = torch.nn.functional.normalize(tokens, dim=-1) * (
        10 + 0.1 * torch.rand(3, 64, 1, dtype=torch.float64)
    )
    narrow[1, :3] *= 0.1
    assert token_norms(narrow).low.tolist() == [0, 3, 0]


def test_scale_does_not_matter_and_equal_tokens_have_no_outlier(tokens):
    torch.testing.assert_close(token_norms(7 * tokens).robust_z, token_norms(tokens).robust_z)
    unit = torch.nn.functional.normalize(tokens.float(), dim=-1)
    assert not token_norms(unit).robust_z.any()  # equal but for rounding
    unit[0, 0] *= 1.5
    assert token_norms(unit).high.tolist() == [1, 0, 0]
    same = token_norms(torch.ones(2, 5, 3))
    assert not same.robust_z.any() and not same.high.any() and not same.low.any()


def test_percentiles_of_dissimilarity(tokens):
    assert worst_cosines(cosines(tokens, 3 * tokens)) == pytest.approx(dict.fromkeys((50, 70, 90, 95, 99), 1))
    cosine = torch.rand(7, 301, dtype=torch.float64)
    wanted = 1 - np.percentile(1 - cosine.numpy(), [50, 70, 90, 95, 99])
    np.testing.assert_allclose(list(worst_cosines(cosine).values()), wanted)
    assert worst_cosines(torch.tensor([0.5])) == pytest.approx(dict.fromkeys((50, 70, 90, 95, 99), 0.5))


def test_correlation_of_heat_maps():
    mask = torch.zeros(4, 6, 6)
    mask[:, 2:4] = 1
    heat = torch.stack([3 * mask[0] + 1, -mask[0], torch.ones(6, 6), torch.rand(6, 6)])
    values = pearson(heat, mask)
    assert values[0] == pytest.approx(1) and values[1] == pytest.approx(-1) and values[2].isnan()
    assert pearson(heat[:1], torch.ones(1, 6, 6)).isnan().all()


def test_the_metric_averages_classes_then_images():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2] = 2
    labels[0, 3] = 255
    perfect = torch.stack([(labels[0] == i).float() for i in range(3)])
    metric = HeatMapCorrelation()

    def answer(scores, truth):
        return {'seg_logits': {'data': scores}, 'gt_sem_seg': {'data': truth}}

    metric.process(None, [answer(perfect, labels), answer(-perfect, labels), answer(perfect, 0 * labels)])
    metric.process(None, [answer(perfect, torch.full_like(labels, 255))])
    assert metric.results == pytest.approx([1, -1])  # one class alone, or none, does not count
    assert metric.compute_metrics(metric.results) == {'pearson': pytest.approx(0)}
    with pytest.raises(UserError, match='no image has two classes'):
        metric.compute_metrics([])


# ------------------------------------------------------------------------------------------------------- the tool


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for number, shape in enumerate([(80, 100), (64, 56), (70, 70)]):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), shape)
        cv2.imwrite(str(tmp_path / f'photos/{number}.jpg'), image)
    (tmp_path / 'photos/3.jpg').write_bytes(b'\xff\xd8 broken')
    return tmp_path / 'photos'


@pytest.mark.parametrize('config', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_tool_writes_numbers_and_a_picture(config, photos, tmp_path, monkeypatch, capsys):
    arguments = [str(config), '--images', str(photos), '--out', str(tmp_path / 'out'), '--views', '6']
    monkeypatch.setattr(sys, 'argv', ['artifact_metrics.py', *arguments])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools/artifact_metrics.py'), run_name='__main__')
    assert leave.value.code == 0
    results = json.loads((tmp_path / 'out/artifacts.json').read_text())
    assert (results['images'], results['skipped'], results['views']) == (3, 1, 6)
    assert set(results['teacher']) == set(results['student'])
    assert -1 <= results['student']['cosine_worst_99'] <= results['student']['cosine_worst_50'] <= 1
    assert cv2.imread(str(tmp_path / 'out/artifacts.png')).shape[0] > 300
    captured = capsys.readouterr()
    assert 'cosine_worst_99' in captured.out and '3.jpg' in captured.err


def test_a_checkpoint_changes_the_student_alone(photos, tmp_path):
    from vfd.apis.config import load_config
    from vfd.methods.ph_reg.artifacts import _model

    config = load_config(CONFIGS[-1])
    torch.manual_seed(1)
    model = _model(config, None)
    state = {name: value + 0.5 * torch.randn_like(value) for name, value in model.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'epoch_1.pth')
    answers = []
    for checkpoint in (None, tmp_path / 'epoch_1.pth'):
        torch.manual_seed(2)  # the teacher of this config is random
        answers.append(analyse_artifacts(config, checkpoint, photos, tmp_path / 'out', views=3, limit=2))
    assert answers[0]['images'] == 2 and answers[0]['student'] != answers[1]['student']
    assert answers[0]['teacher'] == answers[1]['teacher']
    print_table(answers[0])
    name = next(iter(state))
    torch.save({'state_dict': {**state, name: state[name] * torch.nan}, 'meta': {}}, tmp_path / 'nan.pth')
    with pytest.raises(UserError, match=r'0\.jpg.* not finite'):
        analyse_artifacts(config, tmp_path / 'nan.pth', photos, tmp_path / 'out', views=3)
    state.popitem()
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match='Missing 1'):
        analyse_artifacts(config, tmp_path / 'epoch_1.pth', photos, tmp_path / 'out')


def test_mistakes_of_the_tool(photos, tmp_path):
    with pytest.raises(UserError, match='views=1'):
        analyse_artifacts(CONFIGS[0], None, photos, tmp_path, views=1)
    with pytest.raises(UserError, match='DenoisedTeacher'):
        analyse_artifacts(ROOT / 'configs/ph_reg/zero-shot_tiny_folder.py', None, photos, tmp_path)
    with pytest.raises(MissingFileError, match='nowhere'):
        analyse_artifacts(CONFIGS[0], None, tmp_path / 'nowhere', tmp_path)
    for file in photos.glob('[012].jpg'):
        file.unlink()
    with pytest.raises(UserError, match='none of the 1 images'):
        analyse_artifacts(CONFIGS[0], None, photos, tmp_path, views=2)
