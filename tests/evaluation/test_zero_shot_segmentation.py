"""Zero-shot segmentation: names, text features, windows, classes, refinement, configs, testing through the runner."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS as MMSEG_DATASETS

from vfd.apis import config as config_api
from vfd.apis import training
from vfd.errors import MissingFileError, UserError
from vfd.evaluation import read_class_names, refine, text_features
from vfd.evaluation.zero_shot import choose_class, class_scores, slide, sliding_windows
from vfd.registry import DATASETS, MODELS

CONFIGS = Path(__file__).parents[2] / 'configs/ph_reg'
TINY = CONFIGS / 'zero-shot_tiny_folder.py'
TOWER = f'local-dir:{CONFIGS / "_base_/clip_tiny"}'
# short side, window, threshold of the background
PUBLISHED = {
    'voc21': (448, 336, 0.1), 'context60': (448, 336, None), 'coco-object': (336, 336, None), 'voc20': (336, 336, 0),
    'context59': (448, 336, 0), 'coco-stuff': (448, 336, 0), 'cityscapes': (560, 224, 0), 'ade20k': (448, 336, 0),
}  # fmt: skip


@functools.cache
def read(path: Path):
    return config_api.load_config(path)


def build(**changes):
    model = copy.deepcopy(read(TINY).model)
    for name, value in changes.items():
        model[name] = value  # not update(), which merges
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        return MODELS.build(model)


def sample(shape, labels=None, **meta):
    from mmseg.structures import SegDataSample

    made = SegDataSample(metainfo={'ori_shape': shape, 'img_path': 'a.png', **meta})
    if labels is not None:
        made.gt_sem_seg = PixelData(data=labels)
    return made


# ------------------------------------------------------------------------------------------------------- names


def test_names_of_a_file_and_of_a_list(tmp_path):
    file = tmp_path / 'names.txt'
    file.write_text('\ufeffsky\ncar, automobile\ntraffic light\n\n', encoding='utf-8')
    assert read_class_names(file) == [['sky'], ['car', 'automobile'], ['traffic light']]
    assert read_class_names(['sky', 'car, automobile']) == [['sky'], ['car', 'automobile']]


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'', 'at least two'),
        (b'sky\n', 'at least two'),
        (b'sky\n\ncar\n', 'line 2'),
        (b'sky\ncar,\n', 'line 2.*"car,"'),
        (b'sky\ncar, sky\n', 'line 2: "sky" stands in line 1'),
        (b'sky\n\xff\xfe', 'UTF-8'),
    ],
)
def test_bad_files_of_names(tmp_path, content, text):
    file = tmp_path / 'names.txt'
    file.write_bytes(content)
    with pytest.raises(UserError, match=text):
        read_class_names(file)


def test_a_file_of_names_that_is_not_there():
    with pytest.raises(MissingFileError, match=r'nowhere\.txt'):
        read_class_names('nowhere.txt')


# -------------------------------------------------------------------------------------------------------- text


def test_text_features_are_means_over_the_templates(tmp_path):
    torch.manual_seed(3)
    model = open_clip.create_model(TOWER, load_weights=False).eval()
    torch.save(
        {k: v for k, v in model.state_dict().items() if not k.startswith('visual.')}, tmp_path / 'text.pth'
    )
    ours = text_features(['cat', 'traffic light'], TOWER, str(tmp_path / 'text.pth'))
    tokenizer = open_clip.get_tokenizer(TOWER)
    for name, feature in zip(['cat', 'traffic light'], ours, strict=True):
        sentences = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
        assert len(sentences) == 80
        with torch.no_grad():
            each = F.normalize(model.encode_text(tokenizer(sentences)), dim=-1)
        torch.testing.assert_close(feature, F.normalize(each.mean(0), dim=0))


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (dict(text_weights=None), 'name its weights'),
        (dict(text_weights='opnai', text_model='ViT-B-16-quickgelu'), 'did you mean "openai"'),
        (dict(text_model='ViT-B-61'), 'did you mean "ViT-B-16"'),
        (dict(text_model='local-dir:nowhere'), 'open_clip_config'),
        (dict(stride=65), 'larger than crop_size'),
        (dict(crop_size=(1, 2, 3)), 'crop_size'),
        (dict(prob_thd=1.5), 'prob_thd'),
        (dict(softmax_over='names'), 'queries'),
        (dict(pamr_steps=-1), 'pamr_steps'),
        (dict(class_names=['one']), 'two classes'),
    ],
)
def test_mistakes_are_found_when_it_is_built(changes, text):
    with pytest.raises(UserError, match=text):
        build(**changes)


def test_text_file_that_lacks_tensors(tmp_path):
    model = open_clip.create_model(TOWER, load_weights=False)
    state = model.state_dict()
    state.pop('text_projection')
    torch.save(state, tmp_path / 'text.pth')
    with pytest.raises(UserError, match='text_projection'):
        text_features(['cat', 'dog'], TOWER, str(tmp_path / 'text.pth'))


# ------------------------------------------------------------------------------------------- windows and classes


@pytest.mark.parametrize(('height', 'width'), [(336, 336), (448, 597), (100, 400), (337, 450)])
def test_windows_cover_the_image_and_stay_inside(height, width):
    windows = sliding_windows(height, width, (336, 336), (112, 112))
    count = torch.zeros(height, width)
    for top, left, bottom, right in windows:
        assert (bottom - top, right - left) == (min(336, height), min(336, width))
        count[top:bottom, left:right] += 1
    assert count.min() >= 1 and len(set(windows)) == len(windows)


def test_constant_scores_stay_constant_and_one_window_is_plain_resizing():
    images = torch.rand(2, 3, 40, 56, dtype=torch.float64)
    ones = slide(images, (16, 16), (8, 8), lambda crops: crops.new_full((len(crops), 2, 4, 4), 0.3))
    torch.testing.assert_close(ones, torch.full((2, 2, 40, 56), 0.3, dtype=torch.float64))

    def pooled(crops):
        return F.avg_pool2d(crops, 8)

    whole = slide(images, (40, 56), (8, 8), pooled)
    torch.testing.assert_close(whole, F.interpolate(pooled(images), (40, 56), mode='bilinear'))


def test_chunks_of_windows_change_nothing(monkeypatch):
    images = torch.rand(2, 3, 40, 56, dtype=torch.float64)
    args = (images, (16, 16), (8, 8), lambda crops: F.avg_pool2d(crops, 4))
    whole = slide(*args)
    monkeypatch.setattr('vfd.evaluation.zero_shot._WINDOWS_AT_ONCE', 3)
    torch.testing.assert_close(slide(*args), whole)


def test_a_class_is_scored_by_its_best_name_and_unlikely_pixels_are_background():
    logits = torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.2, 0.21]])[:, :, None]  # 3 queries, 2 x 1 pixels
    scores, probabilities = class_scores(logits, torch.tensor([0, 1, 1]), 10.0)
    torch.testing.assert_close(scores[:, :, 0], torch.tensor([[1.0, 2.0], [3.0, 2.1]]))
    torch.testing.assert_close(probabilities, scores.softmax(0))
    assert choose_class(probabilities, 0.0)[0, :, 0].tolist() == [1, 1]
    assert choose_class(probabilities, 0.6)[0, :, 0].tolist() == [1, 0]


def test_softmax_over_all_queries_lowers_classes_with_several_names():
    logits = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([0, 1, 1, 2, 2])
    scores, probabilities = class_scores(logits, owners, 3.0)
    same, over_queries = class_scores(logits, owners, 3.0, 'queries')
    assert same.equal(scores)
    each = torch.exp(3 * logits) / torch.exp(3 * logits).sum(0)
    expected = torch.stack([each[0], each[1:3].amax(0), each[3:].amax(0)])
    torch.testing.assert_close(over_queries, expected)
    assert over_queries.argmax(0).equal(probabilities.argmax(0))
    assert (over_queries < probabilities).all()
    alone = [class_scores(logits, torch.arange(5), 3.0, over)[1] for over in ('classes', 'queries')]
    assert alone[0].equal(alone[1])


def test_the_segmentor_takes_the_softmax_it_is_told():
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    labels = []
    for over in ('classes', 'queries'):
        torch.manual_seed(0)
        model = build(softmax_over=over, logit_scale=1.0, prob_thd=0.3)
        labels.append(model(images, [sample((64, 96))], mode='predict')[0].pred_sem_seg.data)
    # Four names of three classes at scale 1: a class has about 1/3 over classes, and about 1/4 over names.
    assert labels[0].any() and not labels[1].any()


def test_refinement_keeps_constants_and_follows_the_image():
    torch.manual_seed(0)
    images = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    images[..., 20:] = 1
    maps = (images[:, :1] + 0.3 * torch.randn(1, 1, 40, 40, dtype=torch.float64)).repeat(1, 2, 1, 1)
    assert refine(images, maps, 0) is maps
    refined = refine(images, maps, 5, (2, 4))
    error, before = ((m - images[:, :1]).square().mean() for m in (refined, maps))
    assert error < 0.2 * before  # smoothed, and not over the edge
    torch.testing.assert_close(refine(images, torch.full_like(maps, 0.7), 3), torch.full_like(maps, 0.7))


# ------------------------------------------------------------------------------------------------------ the model


def test_padding_is_cut_off_and_the_answer_has_the_original_size():
    model = build()
    images = torch.rand(1, 3, 64, 96)
    plain = model(images, [sample((50, 75))], mode='predict')[0]
    assert plain.pred_sem_seg.data.shape == (1, 50, 75) and plain.seg_logits.data.shape == (3, 50, 75)
    cut = model(images, [sample((64, 80), img_padding_size=(0, 16, 0, 0))], mode='predict')[0]
    logits = model(images)  # four names of three classes
    assert logits.shape == (1, 4, 64, 96)
    expected = torch.stack([logits[0, :2].amax(0), logits[0, 2], logits[0, 3]])[..., :80]
    torch.testing.assert_close(cut.seg_logits.data, 40 * expected)


def test_labels_without_a_name_and_other_text_towers_are_refused():
    model = build()
    with pytest.raises(UserError, match='label 7, but there are only 3'):
        model(torch.rand(1, 3, 64, 64), [sample((64, 64), torch.full((1, 64, 64), 7))], mode='predict')
    unlabelled = sample((64, 64), torch.full((1, 64, 64), 255))
    model(torch.rand(1, 3, 64, 64), [unlabelled], mode='predict')
    with pytest.raises(UserError, match='nothing to train'):
        model(torch.rand(1, 3, 64, 64), [unlabelled], mode='loss')
    with pytest.raises(UserError, match=r'a\.png are not finite'):
        model(torch.full((1, 3, 64, 64), torch.nan), [sample((64, 64))], mode='predict')
    backbone = {**model_config().backbone, 'embed_dim': 24}
    with pytest.raises(UserError, match=r'24 channels.* 16'):
        build(backbone=backbone)(torch.rand(1, 3, 64, 64))


def model_config():
    return copy.deepcopy(read(TINY).model)


def test_a_distilled_student_a_released_file_and_its_own_checkpoint_are_read():
    from mmengine.runner.checkpoint import _load_checkpoint_to_model

    source = build()
    torch.manual_seed(9)
    for parameter in source.backbone.parameters():
        parameter.data.normal_()
    state = source.backbone.network.state_dict()
    released = {f'vit.{k}': v for k, v in state.items() if k != 'register_tokens'}
    released['register_tokens'] = state['register_tokens']
    student = {f'student.{k}': v for k, v in state.items()}
    for weights in (student, released, source.state_dict()):
        model = build()
        _load_checkpoint_to_model(model, {'state_dict': weights}, strict=False)
        assert all(v.equal(state[k]) for k, v in model.backbone.network.state_dict().items())
    for name in ('ln_post.bias', 'register_tokens'):
        part = {k: v for k, v in student.items() if k != f'student.{name}'}
        with pytest.raises(UserError, match=name):
            _load_checkpoint_to_model(build(), {'state_dict': part}, strict=False)


# -------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('name', PUBLISHED)
def test_settings_are_the_published_ones(name):
    cfg = read(CONFIGS / f'zero-shot_clip-vit-base-p16_{name}.py')
    short_side, crop, threshold = PUBLISHED[name]
    model = cfg.model
    assert (model.crop_size, model.stride, model.logit_scale, model.pamr_steps) == (crop, 112, 40, 0)
    assert threshold is None or model.get('prob_thd', 0) == threshold
    assert cfg.test_dataloader.dataset.pipeline[1] == dict(
        type='Resize', scale=(2048, short_side), keep_ratio=True
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        kind = MMSEG_DATASETS.get(cfg.test_dataloader.dataset.type)
        with torch.device('meta'):
            assert MODELS.build(copy.deepcopy(model)).backbone.network.out_channels == 512
    classes = (cfg.test_dataloader.dataset.get('metainfo') or kind.METAINFO)['classes']
    assert len(read_class_names(model.class_names)) == len(classes)
    assert ('background' in classes) == (threshold != 0)


def test_coco_object_is_made_of_coco_stuff(tmp_path):
    import cv2
    import numpy as np

    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / 'images/1.jpg'), np.zeros((2, 2, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'labels/1_labelTrainIds.png'), np.array([[0, 79], [80, 255]], np.uint8))
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(
            dict(
                type='vfd.COCOObjectDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images', seg_map_path='labels'),
                pipeline=[dict(type='LoadAnnotations')],
            )
        )
    assert dataset[0]['gt_seg_map'].tolist() == [[1, 80], [0, 0]]
    assert len(dataset.metainfo['classes']) == 81 and dataset.metainfo['classes'][80] == 'toothbrush'


# ------------------------------------------------------------------------------------------------------ the runner


def test_through_the_runner_with_a_distilled_student(seg_small, here):
    state = build().backbone.network.state_dict()
    torch.save(
        {'state_dict': {f'student.{k}': v for k, v in state.items()}, 'meta': {}}, here / 'epoch_1.pth'
    )
    options = {'visualizer.vis_backends': [], 'randomness.seed': 0}
    metrics = training.test(TINY, here / 'epoch_1.pth', here / 'test', options=options)
    assert 0 <= metrics['mIoU'] <= 100 and -1 <= metrics['heat/pearson'] <= 1
    refined = training.test(
        TINY,
        here / 'epoch_1.pth',
        here / 'test',
        options={**options, 'model.pamr_steps': 2, 'model.prob_thd': 0.0},
    )
    assert 0 <= refined['mIoU'] <= 100
    torch.save(state, here / 'tower.pth')
    named = {**options, 'model.backbone.checkpoint': str(here / 'tower.pth')}
    assert training.test(TINY, None, here / 'test', options=named) == metrics


def test_weights_have_to_be_named_and_there_is_nothing_to_train(tmp_path):
    with pytest.raises(UserError, match='which weights'):
        training.test(TINY, work_dir=tmp_path)
    with pytest.raises(UserError, match='nothing to train'):
        training.train(TINY, work_dir=tmp_path)
