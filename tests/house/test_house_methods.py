"""Every method is complete: README, configs, metafile, golden test, training test, documentation."""

import importlib
import inspect
import re

import pytest
import yaml
from house_pages import ROOT
from mmengine.model import BaseModel

from vfd.methods.base import Distiller, Method

METHODS = sorted(path.parent.name for path in ROOT.glob('vfd/methods/*/__init__.py'))


def test_there_is_a_method():
    assert METHODS


def test_no_folder_is_half_a_method():
    folders = {path.name for path in ROOT.glob('vfd/methods/*/') if not path.name.startswith('_')}
    assert folders == set(METHODS)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('subject', ['paper', 'formula', 'settings', 'limits'])
def test_readme_has_its_sections(name, subject):
    headings = re.findall(r'^#+ .*$', (ROOT / f'vfd/methods/{name}/README.md').read_text(), re.MULTILINE)
    assert any(subject in heading.lower() for heading in headings), headings


@pytest.mark.parametrize('name', METHODS)
def test_configs_and_metafile(name):
    folder = ROOT / 'configs' / name
    configs = {path.relative_to(ROOT).as_posix() for path in folder.glob('*.py')}
    assert configs
    metafile = yaml.safe_load((folder / 'metafile.yml').read_text())
    (collection,) = metafile['Collections']
    assert collection['Paper']['Title'] and collection['Paper']['URL'].startswith('https://')
    assert (ROOT / collection['README']) == ROOT / f'vfd/methods/{name}/README.md'
    named = [model['Config'] for model in metafile['Models']]
    assert named and len(set(named)) == len(named) and set(named) <= configs
    assert {model['In Collection'] for model in metafile['Models']} == {collection['Name']}


@pytest.mark.parametrize('name', METHODS)
def test_golden_and_training_tests(name):
    readme = (ROOT / f'vfd/methods/{name}/README.md').read_text()
    goldens = set(
        re.findall(r'`tests/golden/test_(\w+)\.py`', readme)
    )  # by name, or as the specification calls it
    assert goldens
    for golden in goldens:
        module = (ROOT / f'tests/golden/test_{golden}.py').read_text()
        assert re.search(r'^def test_', module, re.MULTILINE) and f"GOLDEN = '{golden}'" in module
        folder = ROOT / 'tests/golden/data' / golden
        assert [file for file in folder.iterdir() if file.suffix in ('.npz', '.json')]
    tests = ''.join(file.read_text() for file in ROOT.glob(f'tests/methods/test_{name}*.py'))
    assert re.search(r'^def test_\w*train_a_moment', tests, re.MULTILINE)


def _models():
    for name in METHODS:
        package = importlib.import_module(f'vfd.methods.{name}')
        yield from {
            kind for kind in vars(package).values() if inspect.isclass(kind) and issubclass(kind, BaseModel)
        }


@pytest.mark.parametrize('kind', _models(), ids=lambda kind: kind.__name__)
def test_two_base_classes_at_most(kind):
    own = kind.__mro__[: kind.__mro__.index(BaseModel)]
    assert own in ((kind, Method), (kind, Distiller, Method))
    assert all(len(cls.__bases__) == 1 for cls in own)


@pytest.mark.parametrize('name', METHODS)
def test_documentation(name):
    assert f'- methods/{name}.md\n' in (ROOT / 'mkdocs.yml').read_text()
    assert f'(vfd/methods/{name}/README.md)' in (ROOT / 'README.md').read_text()
