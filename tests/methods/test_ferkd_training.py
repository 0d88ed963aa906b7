"""Training from stored labels: crops and labels of a batch, mixing, resume, equality with an online teacher, export."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from ferkd_store import CLASSES, make_images, make_store
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from PIL import Image

from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.losses import SparseLabels, soft_cross_entropy, sparse_labels
from vfd.methods.ferkd import MixupCutmix, SelfMix, StoredCropDataset, crop_major_collate
from vfd.methods.ferkd.mixing import draw_partners
from vfd.methods.ferkd.stored_crops import crop_major_labels
from vfd.registry import MODELS
from vfd.stores import LabelStore

K = 3
PREPROCESSOR = {
    'type': 'mmpretrain.ClsDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}


@pytest.fixture
def made(tmp_path):
    """A folder of images and a store of their labels."""
    images = tmp_path / 'images'
    names = make_images(images)
    return make_store(tmp_path / 'store', images, names), images, names


def dataset(made, **options) -> StoredCropDataset:
    return StoredCropDataset(made[0], str(made[1]), **{'num_crops': K, 'crop_size': 32, **options})


def batch_of(data, indices=(0, 1, 2, 3), seed=0) -> dict:
    torch.manual_seed(seed)
    return crop_major_collate([data[index] for index in indices])


def build(student='test_resnet', seed=0, **options):
    torch.manual_seed(seed)
    network = {'type': 'mmpretrain.TimmClassifier', 'model_name': student, 'num_classes': CLASSES}
    return MODELS.build(
        {'type': 'vfd.FerKD', 'student': network, 'data_preprocessor': PREPROCESSOR, **options}
    ).train()


# ------------------------------------------------------------------------------------------------- crops and labels


def test_a_crop_is_cut_resized_and_flipped_as_pillow_does_it(made):
    data = dataset(made, num_crops=8)
    store = LabelStore(made[0])
    torch.manual_seed(3)
    item = data[4]
    torch.manual_seed(3)
    rows = torch.randperm(8)
    stored = store.read(4)
    image = Image.open(made[1] / made[2][4]).convert('RGB')
    for pixels, row in zip(item['inputs'], rows.tolist(), strict=True):
        top, left, height, width = stored.boxes[row].tolist()
        crop = image.crop((left, top, left + width, top + height)).resize((32, 32), Image.BILINEAR)
        crop = crop.transpose(Image.FLIP_LEFT_RIGHT) if stored.flip[row] else crop
        np.testing.assert_array_equal(pixels.numpy()[::-1].transpose(1, 2, 0), np.asarray(crop))
    np.testing.assert_array_equal(item['data_samples'].stored_label, stored.labels[rows])
    assert item['inputs'].dtype == torch.uint8 and item['data_samples'].ground_truth == 4


def test_the_batch_is_crop_major(made):
    data = dataset(made)
    torch.manual_seed(0)
    items = [data[index] for index in range(4)]
    batch = crop_major_collate(items)
    labels = crop_major_labels(batch['data_samples'])
    assert batch['inputs'].shape == (K * 4, 3, 32, 32) and labels.shape == (K * 4, 2, 5)
    for crop in range(K):
        for image in range(4):
            assert batch['inputs'][crop * 4 + image].equal(items[image]['inputs'][crop])
            own = items[image]['data_samples'].stored_label[crop]
            np.testing.assert_array_equal(labels[crop * 4 + image], own)


def test_crops_of_an_image_are_distinct_and_change_with_the_visit(made):
    data = dataset(made, num_crops=8)
    first, second = (batch_of(data, [0], seed)['data_samples'][0].stored_label for seed in (0, 1))
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


@pytest.mark.parametrize('values', ['float32', 'float16'])
@pytest.mark.parametrize('label_type', ['marginal_smoothing_k5', 'marginal_renorm_k3', 'smoothing', 'ori'])
@pytest.mark.parametrize('confidence', ['max', 'gt'])
def test_calibrated_while_reading_equals_the_calibrated_store(
    label_type, values, confidence, tmp_path, monkeypatch
):
    from vfd.methods.ferkd import calibrate_store

    monkeypatch.setattr('rich.console.Console.print', lambda *args, **kwargs: None)
    names = make_images(tmp_path / 'images', 4)
    raw = make_store(tmp_path / 'raw', tmp_path / 'images', names, 8, label_type, values)
    settings = {
        'thresholds': (0.2, 0.4, 0.6) if confidence == 'max' else (0.01, 0.05, 0.3),
        'confidence': confidence,
        'min_keep': K,
    }
    calibrate_store(raw, tmp_path / 'baked', settings)
    live = dataset((raw, tmp_path / 'images', names), calibration=settings)
    baked = dataset((tmp_path / 'baked', tmp_path / 'images', names))
    changed = False
    for seed in range(3):
        one, other = (batch_of(data, range(4), seed) for data in (live, baked))
        assert one['inputs'].equal(other['inputs'])
        assert crop_major_labels(one['data_samples']).equal(crop_major_labels(other['data_samples']))
        assert one['data_samples'][0].label_type == other['data_samples'][0].label_type
        plain = crop_major_labels(
            batch_of(dataset((raw, tmp_path / 'images', names)), range(4), seed)['data_samples']
        )
        changed |= not plain.equal(crop_major_labels(one['data_samples']))
    assert changed


# -------------------------------------------------------------------------------------------------------- bad input


def test_a_missing_image_is_bad_data_and_a_changed_one_an_error(made):
    data = dataset(made)
    path = made[1] / made[2][2]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(BadDataError, match='no such file'):
        data[2]
    buffer = io.BytesIO()
    Image.new('RGB', (46, 46)).save(buffer, 'PNG')
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r'2\.png changed after it was labelled.*record 2') as changed:
        data[2]
    assert not isinstance(changed.value, BadDataError)
    path.write_bytes(content[:-1] + b'x')
    with pytest.raises(UserError, match='changed after it was labelled'):
        data[2]


def test_the_size_is_compared_where_no_checksum_is_known(made, monkeypatch):
    data = dataset(made)
    monkeypatch.setattr(LabelStore, 'file', lambda store, index: (0, 0))
    Image.new('RGB', (9, 9)).save(made[1] / made[2][0])
    with pytest.raises(UserError, match='9 x 9 pixels'):
        data[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_crops': 9}, '8 crops an image'),
        ({'num_crops': 0}, 'num_crops=0'),
        ({'crop_size': 0}, 'crop_size=0'),
        ({'metainfo': {'classes': ['a']}}, '10 classes, metainfo names 1'),
        ({'calibration': {'thresholds': (0.5, 0.3, 0.9)}}, 'low <= mid <= high'),
        ({'calibration': {'limits': (0.5, 0.3, 0.9)}}, 'limits'),
        ({'calibration': {}}, 'three thresholds'),
    ],
)
def test_settings_that_cannot_be_are_refused(made, options, message):
    with pytest.raises(UserError, match=message):
        dataset(made, **options)


def test_the_store_of_other_images_is_refused(made, tmp_path):
    with pytest.raises(MissingFileError, match='store of that data set'):
        StoredCropDataset(made[0], str(tmp_path))
    with pytest.raises(MissingFileError):
        StoredCropDataset(tmp_path / 'nowhere', str(tmp_path))


def test_an_image_with_too_few_crops_is_named(made):
    data = dataset(made, calibration={'thresholds': (0.9999, 0.9999, 1.0), 'min_keep': K - 1})
    with pytest.raises(UserError, match=r'0\.png \(record 0\) has 2 crops after calibration, num_crops is 3'):
        data[0]


def test_batches_without_stored_labels_are_refused(made):
    model = build()
    with pytest.raises(UserError, match='StoredCropDataset'):
        model(torch.zeros(2, 3, 32, 32), [DataSample()] * 2, mode='loss')
    batch = batch_of(dataset(made))
    with pytest.raises(UserError, match='crop_major_collate'):
        model(torch.zeros(4, 3, 32, 32), batch['data_samples'], mode='loss')
    model.student.model.reset_classifier(CLASSES + 1)
    with pytest.raises(UserError, match='11 classes, the stored labels have 10'):
        model(torch.zeros(12, 3, 32, 32), batch['data_samples'], mode='loss')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'temperature': 0.0}, 'positive'),
        ({'selfmix': {}, 'mixup_cutmix': {}}, 'choose one'),
        ({'selfmix': {'knd': 'mixup'}}, r'did you mean "kind"'),
        ({'selfmix': {'kind': 'cutmx'}}, r'did you mean "cutmix"'),
        ({'mixup_cutmix': {'prob': 2.0}}, 'between 0 and 1'),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


# ----------------------------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize('derange', [True, False])
def test_partners_are_permutations_within_an_image(derange):
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        partner = draw_partners(5, 3, derange, generator)
        rows = torch.arange(15)
        assert partner.sort().values.equal(rows)
        assert (partner % 5).equal(rows % 5)
        seen |= {tuple(partner[image::5].tolist()) for image in range(1)}
        assert not derange or not (partner == rows).any()
    assert len(seen) == (2 if derange else 6)


@pytest.mark.parametrize('kind', ['cutmix', 'mixup'])
@pytest.mark.parametrize('per', ['batch', 'image'])
def test_selfmix_never_leaves_the_image(kind, per):
    rng, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    images = torch.arange(5.0).repeat(3).view(15, 1, 1, 1).expand(15, 3, 16, 16).clone()
    labels = sparse_labels(torch.arange(5).repeat(3), 'hard', 5)
    assert isinstance(labels, SparseLabels)
    for _ in range(20):
        mix = SelfMix(kind, per=per).draw(15, 3, (16, 16), rng, generator)
        torch.testing.assert_close(mix.images(images), images)
        torch.testing.assert_close(mix.labels(labels).dense(5), labels.dense(5))
        assert len(mix.share.unique()) <= (5 if per == 'image' else 1)
    assert SelfMix(kind).draw(5, 1, (16, 16), rng) is None  # one crop an image


@pytest.mark.parametrize('mixing', [MixupCutmix(), SelfMix('cutmix', per='image'), SelfMix('mixup')])
def test_mixed_loss_is_the_mean_of_two_losses(mixing):
    """And the given images stay as they are."""
    torch.manual_seed(0)
    rng = np.random.RandomState(0)
    images, logits = torch.randn(12, 3, 8, 8), torch.randn(12, CLASSES, dtype=torch.float64)
    stored = torch.stack(
        [torch.randn(12, CLASSES).argsort(1)[:, :3].double(), torch.rand(12, 3).double() / 3], 1
    )
    labels = sparse_labels(stored, 'marginal_smoothing_k3', CLASSES)
    before = images.clone()
    for _ in range(4):
        mix = mixing.draw(12, 3, (8, 8), rng)
        mix.images(images)
        rows = -(labels.dense(CLASSES) * logits.log_softmax(1)).sum(1)
        other = -(labels.dense(CLASSES)[mix.partner] * logits.log_softmax(1)).sum(1)
        expected = (mix.share * rows + (1 - mix.share) * other).mean()
        torch.testing.assert_close(soft_cross_entropy(logits, mix.labels(labels)), expected)
    assert images.equal(before)


# --------------------------------------------------------------------------------------------------------- training


def steps(model, batches):
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    return [model.train_step(copy.deepcopy(batch), wrapper)['loss'].item() for batch in batches]


@pytest.mark.parametrize('mixing', [{}, {'selfmix': {}}, {'mixup_cutmix': {}}], ids=['none', 'self', 'all'])
def test_training_from_the_store_equals_an_online_teacher(mixing, tmp_path):
    """Labels of the type ``ori`` with float32 values: bit for bit for 5 steps."""
    names = make_images(tmp_path / 'images', 4)
    teacher = build('test_efficientnet', 5).student.model.eval()
    raw = make_store(tmp_path / 'crops', tmp_path / 'images', names, 8, 'hard')
    data = dataset((raw, tmp_path / 'images', names), num_crops=8)

    def ask(pixels):
        """The teacher's probabilities of one crop, (C,)."""
        with torch.no_grad():
            return teacher(pixels.flip(0)[None] / 255).softmax(1)[0]

    crops = LabelStore(raw)
    answers = []
    for index in range(4):
        torch.manual_seed(0)
        pixels = data[index]['inputs']  # all crops, in the order of this permutation
        torch.manual_seed(0)
        order = torch.randperm(8)
        answers.append(torch.stack([ask(pixels[order.argsort()[row]]) for row in range(8)]))
    store = make_store(tmp_path / 'store', tmp_path / 'images', names, 8, 'ori', probs=torch.stack(answers))
    np.testing.assert_array_equal(LabelStore(store).read(1).boxes, crops.read(1).boxes)

    stored = dataset((store, tmp_path / 'images', names))
    offline = [batch_of(stored, range(4), seed) for seed in range(5)]
    online = []
    for seed in range(5):
        batch = batch_of(dataset((raw, tmp_path / 'images', names)), range(4), seed)
        for image, sample in enumerate(batch['data_samples']):
            live = torch.stack([ask(batch['inputs'][crop * 4 + image]) for crop in range(K)])
            sample.set_field(live.numpy(), 'stored_label', dtype=np.ndarray)
            sample.set_field('ori', 'label_type', field_type='metainfo', dtype=str)
        online.append(batch)
    results = []
    for batches in (offline, online):
        model = build(**mixing)
        np.random.seed(0)
        torch.manual_seed(0)
        losses = steps(model, batches)
        results.append((losses, model.state_dict()))
    assert results[0][0] == results[1][0] and len(set(results[0][0])) == 5
    for name, value in results[0][1].items():
        assert value.equal(results[1][1][name]), name


def test_autocast_gives_a_float32_loss(made):
    model = build(selfmix={})
    data = model.data_preprocessor(batch_of(dataset(made)), True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model(**data, mode='loss')['loss_soft']
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_only_the_student_is_saved_and_it_predicts():
    model = build()
    assert all(name.startswith('student.') for name in model.state_dict())
    assert 'student.fc.weight' in model.state_dict()
    samples = model.val_step(
        {'inputs': torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 'data_samples': [DataSample(), DataSample()]}
    )
    assert samples[0].pred_score.shape == (CLASSES,)
