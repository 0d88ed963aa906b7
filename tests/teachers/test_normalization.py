import pytest
import torch
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmpretrain.models import ClsDataPreprocessor

from vfd.errors import UserError
from vfd.teachers import Normalization, Teacher

IMAGENET = Normalization.from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalization.from_unit((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def normalise(pixels_rgb: torch.Tensor, norm: Normalization) -> torch.Tensor:
    pixels = pixels_rgb if norm.rgb else pixels_rgb.flip(1)
    mean, std = (torch.tensor(v, dtype=pixels.dtype).view(3, 1, 1) for v in (norm.mean, norm.std))
    return (pixels - mean) / std


@pytest.mark.parametrize(
    'source', [IMAGENET, HALF, Normalization((1, 2, 3), (4, 5, 6), rgb=False), Normalization()]
)
@pytest.mark.parametrize('target', [IMAGENET, HALF, Normalization((7, 8, 9), (3, 2, 1), rgb=False)])
def test_convert_equals_normalising_the_pixels_anew(source, target):
    pixels = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 255
    got = source.convert(normalise(pixels, source), target)
    torch.testing.assert_close(got, normalise(pixels, target), rtol=1e-12, atol=1e-10)


def test_equal_normalisations_leave_the_tensor_alone():
    images = torch.rand(1, 3, 2, 2)
    assert IMAGENET.convert(images, IMAGENET) is images


@pytest.mark.parametrize('to_rgb', [True, False])
def test_reads_what_mmpretrain_does(to_rgb):
    mean, std = [10.0, 20.0, 30.0], [2.0, 3.0, 4.0]
    preprocessor = ClsDataPreprocessor(mean=mean, std=std, to_rgb=to_rgb)
    bgr = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    batch = preprocessor({'inputs': bgr})['inputs']
    norm = Normalization.of_preprocessor(preprocessor)
    rgb = bgr.flip(1).double()
    torch.testing.assert_close(norm.convert(batch.double(), IMAGENET), normalise(rgb, IMAGENET))


def test_reads_what_mmdet_and_mmseg_do():
    preprocessor = ImgDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 2.0], bgr_to_rgb=True)
    norm = Normalization.of_preprocessor(preprocessor)
    assert norm == Normalization((1.0, 2.0, 3.0), (1.0, 1.0, 2.0), rgb=True)
    assert not Normalization.of_preprocessor(ImgDataPreprocessor()).rgb


def test_equal_settings_are_equal():
    """A preprocessor stores float32, timm multiplies float64 by 255: no batch is re-normalised for that."""
    preprocessor = ClsDataPreprocessor(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    )
    assert Normalization.of_preprocessor(preprocessor) == IMAGENET


class PointClouds(BaseDataPreprocessor):
    """Of a user: it makes no images."""


def test_a_preprocessor_that_is_none_of_images_says_nothing_about_them():
    assert Normalization.of_preprocessor(PointClouds()) is None
    assert Normalization.of_preprocessor(BaseDataPreprocessor()) == Normalization(
        rgb=False
    )  # pixels as loaded


def test_a_preprocessor_may_declare_its_normalisation():
    declared = PointClouds()
    declared.normalization = HALF
    assert Normalization.of_preprocessor(declared) is HALF
    images = ClsDataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1])
    images.normalization = None
    assert Normalization.of_preprocessor(images) is None


def test_a_teacher_of_images_is_not_bound_to_point_clouds():
    teacher = Teacher(dict(type='vfd.TimmSource', model_name='test_resnet'), 'random')
    with pytest.raises(UserError) as error:
        teacher.bind(PointClouds())
    assert all(fact in str(error.value) for fact in ('test_resnet', 'PointClouds', 'normalization='))
    declared = PointClouds()
    declared.normalization = teacher.normalization
    teacher.bind(declared)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(teacher(images)['logits'], teacher.network(images))


def test_a_teacher_without_normalisation_converts_nothing():
    teacher = Teacher(dict(type='vfd.TimmSource', model_name='test_resnet'), 'random')
    teacher._normalization = None
    teacher.bind(ClsDataPreprocessor(mean=[1, 2, 3], std=[4, 5, 6]))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(teacher(images)['logits'], teacher.network(images))
    assert (
        teacher.fingerprint()['mean'] is None and 'no normalised image' in teacher.summary()['teacher sees']
    )
    with pytest.raises(UserError, match='no normalisation'):
        _ = teacher.normalization
