"""Every kind of mistake that mmengine would ignore or meet with a traceback is named, with a suggestion."""

import pytest

from vfd.apis import check, config
from vfd.apis.check import accepted_keys
from vfd.apis.config import load_config
from vfd.errors import MissingFileError, MissingPackageError, UserError

GOOD = """
default_scope = 'mmpretrain'
train_pipeline = [dict(type='vfd.LoadImage'), dict(type='RandomResizedCrop', scale=32), dict(type='PackInputs')]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512, loss=dict(type='CrossEntropyLoss')))
train_dataloader = dict(
    batch_size=4, num_workers=0,
    dataset=dict(type='CustomDataset', data_root='x', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), paramwise_cfg=dict(norm_decay_mult=0))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[1], gamma=0.1)
val_evaluator = dict(type='Accuracy', topk=1)
val_cfg = dict()
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=True, save_optimizer=True))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='TensorboardVisBackend')])
env_cfg = dict(mp_cfg=dict(mp_start_method='fork'))
randomness = dict(seed=0)
"""


@pytest.fixture
def check_text(tmp_path):
    def run(text: str, options: dict | None = None):
        (tmp_path / 'config.py').write_text(text)
        return load_config(tmp_path / 'config.py', options)

    return run


def test_a_good_config_passes(check_text):
    assert check_text(GOOD).model.backbone.depth == 18


@pytest.mark.parametrize(
    'good, bad, answer',
    [
        # top level
        ('param_scheduler =', 'param_sheduler =', 'did you mean "param_scheduler"'),
        ('randomness =', 'randomnes =', 'did you mean "randomness"'),
        ('randomness =', "strategy = dict(type='DDPStrateg')\nrandomness =", 'did you mean "DDPStrategy"'),
        # keys of what is built
        ('max_epochs', 'max_epoch', 'did you mean "max_epochs"'),
        ('depth=18', 'dept=18', r'model\.backbone \(ResNet\): "dept".*did you mean "depth"'),
        ('num_classes=10', 'n=10', r'model\.head \(LinearClsHead\): "n" is not known.*num_classes'),
        ('batch_size=4', 'batchsize=4', 'train_dataloader: "batchsize".*"batch_size"'),
        ('lr=0.1', 'learning_rate=0.1', r'optim_wrapper\.optimizer \(SGD\): "learning_rate"'),
        ('norm_decay_mult', 'norm_decaymult', 'did you mean "norm_decay_mult"'),
        ('scale=32', 'scal=32', r'pipeline\[1\] \(RandomResizedCrop\).*"scale"'),
        ('milestones', 'milestone', 'did you mean "milestones"'),
        ('topk=1', 'topkk=1', 'did you mean "topk"'),
        ('val_cfg = dict(', 'val_cfg = dict(fp=1', 'did you mean "fp16"'),
        ('save_optimizer', 'save_optimiser', 'did you mean "save_optimizer"'),
        ('checkpoint=dict', 'chekpoint=dict', 'did you mean "checkpoint"'),
        ('mp_start_method', 'start_method', 'did you mean "mp_start_method"'),
        ('seed=0', 'sed=0', 'did you mean "seed"'),
        ('data_root', 'dataroot', 'did you mean "data_root"'),
        # types
        ("'ResNet'", "'ResNett'", r'did you mean "mmpretrain\.ResNet"'),
        ("'ImageClassifier'", "'FasterRCNN'", r'write type="mmdet\.FasterRCNN"'),
        ("'ImageClassifier'", "'SSLDDistiller'", r'write type="vfd\.SSLDDistiller"'),
        ("'RandomResizedCrop'", "'RandomResizeCrop'", r'did you mean "mmpretrain\.RandomResizedCrop"'),
        ("'SGD'", "'SDG'", 'did you mean "mmengine.SGD"'),
        ("'MultiStepLR'", "'MultistepLR'", 'MultiStepLR"'),
        ("'Accuracy'", "'Acuracy'", r'"mmpretrain\.Accuracy"'),
        ("'CheckpointHook'", "'CheckpointHok'", 'CheckpointHook"'),
        ("'TensorboardVisBackend'", "'TensorBoardVisBackend'", r'"mmengine\.TensorboardVisBackend"'),
        ("'CustomDataset'", "'vfd.ImageListDatset'", r'did you mean "vfd\.ImageListDataset"'),
        ("'CustomDataset'", "'Qqqqqqqqqqqqq'", 'custom_imports'),
    ],
)  # fmt: skip
def test_mistakes(check_text, good, bad, answer):
    assert good in GOOD
    with pytest.raises(UserError, match='(?is)' + answer):
        check_text(GOOD.replace(good, bad, 1))


def test_inheritance_and_own_variables(tmp_path):
    """A variable is fine when some file of the chain reads it; ``_base_`` variables count."""
    (tmp_path / 'base.py').write_text(GOOD + '\nsize = 32\n')
    (tmp_path / 'child.py').write_text(
        "_base_ = './base.py'\ncrop = {{_base_.size}}\ntrain_cfg = dict(max_epochs=crop)\n"
    )
    assert load_config(tmp_path / 'child.py').train_cfg.max_epochs == 32


def test_variables_that_nothing_reads_are_one_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(config, 'print_log', lambda text, *_: said.append(text))
    (tmp_path / 'base.py').write_text(GOOD + "\nsize = 32\ntest_pipeline = []\ndataset_type = 'x'\n")
    (tmp_path / 'child.py').write_text(
        "_base_ = './base.py'\nclass_count = 3\nepochs = 3\nwork_dir = f'{epochs}'\n"
    )
    assert load_config(tmp_path / 'child.py').work_dir == '3'
    (warning,) = said
    for words in ('size, test_pipeline, dataset_type', 'base.py', 'class_count', 'child.py'):
        assert words in warning
    assert 'epochs' not in warning and 'train_pipeline' not in warning
    load_config(tmp_path / 'base.py', {'size': 3})
    assert len(said) == 2


def test_nested_dicts_are_no_templates(tmp_path):
    path = tmp_path / 'nested.py'
    path.write_text("variants = {'a': {'b': 1}}\nwork_dir = str(variants['a']['b'])\n")
    assert load_config(path).work_dir == '1'


def test_bases_of_installed_packages_are_not_questioned(tmp_path):
    (tmp_path / 'child.py').write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    load_config(tmp_path / 'child.py')


def test_new_style_configs(tmp_path):
    (tmp_path / 'base_new.py').write_text(GOOD)
    imports = 'from mmengine.config import read_base\nwith read_base():\n    from .base_new import *\n'
    (tmp_path / 'child.py').write_text(f'{imports}\nparam_sheduler = None\n')
    with pytest.raises(UserError, match='param_scheduler'):
        load_config(tmp_path / 'child.py')


@pytest.mark.parametrize(
    'options, answer',
    [
        ({'optim_wraper.optimizer.lr': 1}, 'did you mean "optim_wrapper"'),
        ({'optim_wrapper.optimizer.lrr': 1}, '"lrr" is not known'),
        ({'train_dataloader.dataset.pipeline.9.scale': 1}, 'do not fit'),
    ],
)
def test_options(check_text, options, answer):
    with pytest.raises(UserError, match=answer):
        check_text(GOOD, options)


def test_options_are_merged(check_text):
    assert check_text(GOOD, {'optim_wrapper.optimizer.lr': 0.5}).optim_wrapper.optimizer.lr == 0.5


@pytest.mark.parametrize(
    'text, answer',
    [
        ('model = dict(', 'line 1'),
        ('model = undefined_name', 'undefined_name'),
        ("_base_ = './none.py'", 'none.py'),
    ],
)
def test_files_that_are_no_config(check_text, text, answer):
    with pytest.raises(UserError, match=answer):
        check_text(text)


def test_an_absent_config_suggests_a_neighbour(tmp_path):
    (tmp_path / 'train_me.py').write_text(GOOD)
    with pytest.raises(MissingFileError, match=r'did you mean "train_me\.py"'):
        load_config(tmp_path / 'train_mee.py')


def test_a_missing_package_is_named_with_its_command(check_text, monkeypatch):
    real = check.importlib.util.find_spec
    monkeypatch.setattr(
        check.importlib.util, 'find_spec', lambda name: None if name == 'mmdet' else real(name)
    )
    with pytest.raises(MissingPackageError, match=r'pip install "vfdistill\[detection\]"'):
        check_text(GOOD.replace("'ImageClassifier'", "'mmdet.FasterRCNN'"))
    with pytest.raises(UserError, match=r'mmdet \(pip install "vfdistill\[detection\]"\)'):
        check_text(GOOD.replace("'ImageClassifier'", "'CascadeQqqqqqqqqqqq'"))


@pytest.mark.parametrize('key', ['train_cgf', 'train_cfg'])
def test_baseline_is_checked_too(check_text, key):
    wrong = f'baseline = dict({key}=dict(max_epoch=3))'
    with pytest.raises(UserError, match=r'baseline.*did you mean'):
        check_text(f'{GOOD}\n{wrong}\n')


class Plain:
    def __init__(self, a, b=1): ...


class HandsOn(Plain):
    def __init__(self, c, **kwargs):
        super().__init__(**kwargs)


class Swallows(Plain):
    def __init__(self, c, **kwargs):
        self.kwargs = kwargs


def test_accepted_keys():
    assert accepted_keys(Plain) == {'a', 'b'}
    assert accepted_keys(HandsOn) == {'a', 'b', 'c'}
    assert accepted_keys(Swallows) is None
    assert accepted_keys(lambda x, y=1: 0) == {'x', 'y'}
    assert accepted_keys(lambda **kw: 0) is None
