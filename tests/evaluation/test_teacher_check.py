"""A quick look at a teacher before training: accuracy, neighbours, and what is near chance."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from vfd.evaluation.teacher_check import check_teacher
from vfd.teachers import TeacherCard

CLASSES = 5


class Colours(BaseDataset):
    """One colour a class, in the order of the classes; ``labelled=False`` hides the labels."""

    def __init__(self, each=20, labelled=True, shift=0):
        self.each, self.labelled, self.shift = each, labelled, shift
        super().__init__(serialize_data=False)

    def load_data_list(self):
        infos = [{'colour': i // self.each} for i in range(CLASSES * self.each)]
        return (
            [{**i, 'gt_label': (i['colour'] + self.shift) % CLASSES} for i in infos]
            if self.labelled
            else infos
        )

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        sample = DataSample().set_gt_label(info.get('gt_label', 0))
        return {'inputs': torch.full((3, 4, 4), float(info['colour'])), 'data_samples': sample}


def prepare(data):
    return ClsDataPreprocessor()(data)


def teacher(tap='logits', answer=None, accuracy=None, knows=True, bn='eval'):
    calls = []

    def call(images, data_samples=None):
        calls.append(len(images))
        colour = images[:, 0, 0, 0].long()
        one_hot = torch.nn.functional.one_hot(colour if knows else 0 * colour, CLASSES).float()
        return {tap: answer(images) if answer else 5 * one_hot + 0.01 * torch.randn(len(images), CLASSES)}

    class Callable(SimpleNamespace):
        def __call__(self, *args, **kwargs):
            return call(*args, **kwargs)

    card = TeacherCard(accuracy=accuracy, held_out=100)
    return Callable(taps=(tap,), card=card, classes=('a', 'b'), input_size=224, bn=bn, calls=calls)


def test_a_good_teacher():
    some = teacher()
    found = check_teacher(some, Colours(), prepare)
    assert 'accuracy 1.000' in found.text and 'chance 0.200' in found.text and not found.warning
    assert sum(some.calls) == 64 and max(some.calls) <= 8


def test_classes_in_another_order_are_near_chance():
    found = check_teacher(teacher(), Colours(shift=2), prepare)
    assert 'accuracy 0.000' in found.text and 'order' in found.warning and 'a, b' in found.warning


def test_a_teacher_that_was_better_when_it_was_made():
    half = teacher(
        accuracy=0.99, bn='train', answer=lambda x: torch.eye(CLASSES)[x[:, 0, 0, 0].long().clamp(max=2)]
    )
    found = check_teacher(half, Colours(), prepare)
    assert '0.990' in found.warning and '224' in found.warning and 'train' in found.warning
    assert half.calls == [64]  # one batch, as its statistics are those of a batch
    assert not check_teacher(teacher(accuracy=0.99), Colours(), prepare).warning


@pytest.mark.parametrize('shape', [(), (3,), (3, 3)], ids=['vector', 'tokens', 'map'])
@pytest.mark.parametrize('knows', [True, False])
def test_features_are_compared_with_their_neighbours(shape, knows):
    def features(images):
        colour = torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), CLASSES).float() * knows
        noisy = colour + 0.01 * torch.randn(len(images), CLASSES)
        if len(shape) == 2:
            return noisy[:, :, None, None].expand(-1, -1, *shape)
        return noisy if not shape else noisy[:, None].expand(-1, *shape, -1)

    torch.manual_seed(0)
    found = check_teacher(teacher('block.3', features), Colours(), prepare)
    assert 'kNN' in found.text and '5 classes' in found.text
    assert bool(found.warning) is not knows


def test_what_cannot_be_measured_says_so():
    assert 'no class labels' in check_teacher(teacher(), Colours(labelled=False), prepare).text
    wide = teacher(answer=lambda x: torch.zeros(len(x), 2))
    assert 'labels up to 4' in check_teacher(wide, Colours(), prepare).warning
    broken = teacher(answer=lambda x: torch.full((len(x), CLASSES), torch.nan))
    assert 'NaN' in check_teacher(broken, Colours(), prepare).warning
