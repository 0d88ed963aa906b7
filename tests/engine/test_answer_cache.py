"""Stored answers of a teacher for samples that are no images."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement

from vfd.engine import Runner
from vfd.engine.hooks.answer_cache import TeacherOutputCacheHook
from vfd.errors import BadDataError
from vfd.registry import DATASETS, HOOKS, MODELS
from vfd.stores import Store
from vfd.teachers import StoredTeacher

SIZE = 8


class Clouds(BaseDataset):
    """Point clouds of a database: no file belongs to one of them."""

    def __init__(self, bad=()):
        self.bad = bad
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [{'sample_key': f'scene-{i // 3}/sweep-{i % 3}', 'number': i} for i in range(9)]

    def prepare_data(self, idx):
        if idx in self.bad:
            raise BadDataError('not a point in it')
        info = self.get_data_info(idx)
        points = torch.sin(torch.arange(SIZE) * (idx + 1.0))
        sample = BaseDataElement(metainfo={'sample_key': info['sample_key'], 'label': idx % 3})
        return {'inputs': {'points': points}, 'data_samples': sample}


class Sums:
    """A teacher of point clouds."""

    calls, seconds = 0, 0.0

    def fingerprint(self):
        return {'source': 'sums'}

    def __call__(self, inputs, data_samples=None):
        Sums.calls += 1
        return {'sum': torch.stack(inputs['points']).sum(1, keepdim=True)}


class CloudNet(BaseModel):
    """Learns the teacher's sums, and remembers what it was told of each sample."""

    def __init__(self):
        super().__init__()
        self.student = torch.nn.Linear(SIZE, 1)
        self.teacher = Sums()
        self.seen = {}

    def forward(self, inputs, data_samples=None, mode='tensor'):
        target = self.teacher(inputs, data_samples=data_samples)['sum']
        for sample, answer, points in zip(data_samples, target, inputs['points'], strict=True):
            self.seen[sample.sample_key] = (answer.item(), points.sum().item())
        return {'loss_sum': (self.student(torch.stack(inputs['points'])) - target).square().mean()}


class SumCache(TeacherOutputCacheHook):
    title = 'sums'

    def check(self, model):
        pass

    def fields(self, model, images):
        return {'sum': ('float32', (1,))}

    def compute(self, model, images, numbers):
        return {'sum': model.teacher(images)['sum'].numpy()}


@pytest.fixture(autouse=True)
def registered():
    DATASETS.register_module(module=Clouds, force=True)
    HOOKS.register_module(module=SumCache, force=True)
    MODELS.register_module(module=CloudNet, force=True)
    yield
    MODELS._module_dict.pop('CloudNet')
    DATASETS._module_dict.pop('Clouds')
    HOOKS._module_dict.pop('SumCache')


def train(folder, name, bad=()):
    config = Config(
        dict(
            work_dir=str(folder / name),
            train_dataloader=dict(
                dataset=dict(type='vfd.Clouds', bad=bad),
                batch_size=2,
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            custom_hooks=[dict(type='vfd.SumCache', store=str(folder / 'store'))],
            experiment_name=name,
            log_level='ERROR',
            model=dict(type='vfd.CloudNet'),
        )
    )
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model


def test_samples_with_keys_of_their_own_are_cached_and_found(tmp_path):
    model = train(tmp_path, 'first')
    assert isinstance(model.teacher, StoredTeacher) and len(Store(tmp_path / 'store')) == 9
    assert 'scene-2/sweep-1' in Store(tmp_path / 'store') and len(model.seen) == 9
    for stored, own in model.seen.values():
        assert abs(stored - own) < 1e-6
    calls = Sums.calls
    again = train(tmp_path, 'second')
    assert calls and Sums.calls == calls  # the store was used as it is
    assert again.seen == model.seen


def test_bad_samples_are_named_by_their_key(tmp_path):
    train(tmp_path, 'bad', bad=(4,))
    assert (tmp_path / 'bad/bad_data.txt').read_text().startswith('scene-1/sweep-1\tnot a point in it')
    assert len(Store(tmp_path / 'store')) == 8
