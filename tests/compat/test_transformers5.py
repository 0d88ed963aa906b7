"""mmpretrain beside a transformers that is too new for it."""

import pytest

from vfd.compat import transformers5


def fake_transformers(folder, version):
    """A transformers that lacks what mmpretrain's multimodal models import."""
    (folder / 'transformers').mkdir()
    (folder / 'transformers' / '__init__.py').write_text('')
    info = folder / f'transformers-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')


@pytest.mark.slow
def test_models_import_beside_transformers_5(run_python, tmp_path):
    fake_transformers(tmp_path, '5.1.0')
    script = """
import vfd.compat
from mmpretrain.utils import dependency
assert dependency.WITH_MULTIMODAL  # or the fake does not look installed
vfd.compat.install()
import mmpretrain.models
import transformers
from mmpretrain.registry import MODELS
assert MODELS.get('ImageClassifier') and MODELS.get('VisionTransformer')
try:
    MODELS.build(dict(type='Llava'))
except ImportError as error:
    assert 'multi-modal dependencies' in str(error), error
    print('imported')
"""
    assert run_python(script).strip().endswith('imported')


@pytest.mark.parametrize(('major', 'multimodal'), [(0, True), (4, True), (5, False), (6, False)])
def test_only_new_versions_are_hidden(monkeypatch, major, multimodal):
    from mmpretrain.utils import dependency

    monkeypatch.setattr(transformers5, '_transformers_major', lambda: major)
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    transformers5.repair()
    assert dependency.WITH_MULTIMODAL is multimodal
