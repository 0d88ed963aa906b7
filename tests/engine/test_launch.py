"""How a config says that it is launched: strategies, gradient accumulation, mixed precision."""

import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from vfd.engine import Runner, launch
from vfd.errors import UserError

DDP = {'type': 'DDPStrategy', 'model_wrapper': {'find_unused_parameters': True, 'broadcast_buffers': False}}


def config(work_dir, *, strategy=None, launcher='none', accumulate=1, **settings):
    """A config file's content; the types are named, as a file names them."""
    text = {
        'model': {'type': 'engine_toy.ToyNet', 'dropout': 0.0, 'queue': 0.0},
        'work_dir': str(work_dir),
        'train_dataloader': {
            'dataset': {'type': 'engine_toy.ToyDataset'},
            'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
            'batch_size': 2 if launcher == 'pytorch' else 4,
            'num_workers': 0,
        },
        'train_cfg': {'by_epoch': False, 'max_iters': 8},
        'optim_wrapper': {
            'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
            'accumulative_counts': accumulate,
        },
        'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False}},
        'custom_hooks': [{'type': 'engine_toy.Recorder'}],
        'randomness': {'seed': 7},
        'launcher': launcher,
        'log_level': 'WARNING',
        'strategy': strategy,
        **settings,
    }
    return Config({key: value for key, value in text.items() if value is not None})


def train(work_dir, toy, custom_hooks=(), **settings):
    torch.manual_seed(0)
    runner = Runner.from_cfg(config(work_dir, **settings))
    for hook in custom_hooks:
        runner.register_hook(hook)
    runner.train()
    (recorder,) = (hook for hook in runner.hooks if isinstance(hook, toy.Recorder))
    return {
        'losses': recorder.losses,
        'weights': runner.bare_model.state_dict(),
        'wrapper': type(runner.model).__name__,
        'unused': getattr(runner.model, 'find_unused_parameters', None),
    }


@pytest.fixture
def train_toy(toy):
    return lambda work_dir, **settings: train(work_dir, toy, **settings)


# --- strategies


def test_a_single_device_strategy_changes_nothing(train_toy, toy, tmp_path):
    plain = train_toy(tmp_path / 'plain')
    chosen = train_toy(
        tmp_path / 'chosen', strategy={'type': 'SingleDeviceStrategy'}, runner_type='FlexibleRunner'
    )
    toy.assert_same(plain, chosen)


def test_ddp_over_two_processes_resumes_exactly_and_equals_one_process(toy, tmp_path):
    settings = {'launcher': 'pytorch', 'strategy': DDP, 'runner_type': 'FlexibleRunner'}
    one = train(tmp_path / 'one', toy)
    whole = toy.run_ranks(train, tmp_path / 'out', 2, tmp_path / 'whole', toy, **settings)
    assert whole[0]['wrapper'] == 'MMDistributedDataParallel' and whole[0]['unused'] is True
    for name, value in one['weights'].items():
        torch.testing.assert_close(whole[0]['weights'][name], value, rtol=1e-5, atol=1e-6)
    killed = {**settings, 'custom_hooks': [toy.KillAt(5)]}
    toy.run_ranks(train, tmp_path / 'no', 2, tmp_path / 'run', toy, code=-signal.SIGKILL, **killed)
    rest = toy.run_ranks(train, tmp_path / 'rest', 2, tmp_path / 'run', toy, resume=True, **settings)
    for before, after in zip(whole, rest, strict=True):
        assert sorted(after['losses']) == [4, 5, 6, 7]
        toy.assert_same({i: before['losses'][i] for i in after['losses']}, after['losses'])
        toy.assert_same(before['weights'], after['weights'])


def test_the_keys_of_ddp_become_settings_of_the_runner():
    cfg = Config({'strategy': {**DDP, 'sync_bn': 'torch'}, 'launcher': 'pytorch'})
    launch.apply_strategy(cfg)
    assert cfg.sync_bn == 'torch' and cfg.model_wrapper_cfg == DDP['model_wrapper']


@pytest.mark.parametrize(
    'settings, answer',
    [
        ({'strategy': {'type': 'DDPStrategy'}}, 'launcher'),
        ({'strategy': {'type': 'SingleDeviceStrategy'}, 'launcher': 'slurm'}, 'slurm'),
        ({'strategy': {'type': 'FSDPStrategy'}}, 'FSDPStrategy.*DDPStrategy'),
        ({'strategy': {'type': 'mmengine.DeepSpeedStrategy', 'zero_optimization': {}}}, 'DeepSpeed'),
        ({'strategy': {'type': 'ColossalAIStrategy'}}, 'Colossal'),
        ({'strategy': {'type': 'DPPStrategy'}}, 'did you mean "DDPStrategy"'),
        ({'strategy': {'type': 'DDPStrategy', 'model_wraper': {}}}, 'did you mean "model_wrapper"'),
        ({'strategy': {'type': 'SingleDeviceStrategy', 'sync_bn': 'torch'}}, 'sync_bn'),
        ({'strategy': {'type': 'DDPStrategy', 'env_kwargs': {}}}, 'env_cfg'),
        (
            {'strategy': {'type': 'DDPStrategy', 'sync_bn': 'torch'}, 'sync_bn': 'torch'},
            'sync_bn.*remove one',
        ),
        ({'strategy': 'DDPStrategy'}, 'write strategy=dict'),
        ({'runner_type': 'FlexibelRunner'}, 'did you mean "FlexibleRunner"'),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(settings, answer, tmp_path):
    with pytest.raises(UserError, match=f'(?s){answer}'):
        Runner.from_cfg(config(tmp_path, **settings))


# --- gradient accumulation


@pytest.mark.parametrize(
    'batch, accumulate, base, lr', [(16, 4, 64, 0.1), (16, 1, 64, 0.025), (4, 2, 4, 0.2)]
)
def test_scaling_the_learning_rate_counts_accumulation(toy, tmp_path, batch, accumulate, base, lr):
    runner = toy.make_runner(tmp_path, batch_size=batch, accumulate=accumulate)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(wrapper, {'enable': True, 'base_batch_size': base})
    assert wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(lr)
    runner.scale_lr(wrapper, {'enable': False, 'base_batch_size': base})
    assert wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(lr)


def test_a_model_that_counts_steps_is_told_of_accumulation(toy, tmp_path):
    runner = toy.make_runner(tmp_path, accumulate=3)
    assert runner.model.accumulative_counts == 1
    runner.build_optim_wrapper(runner.optim_wrapper)
    assert runner.model.accumulative_counts == 3


# --- mixed precision

AMP = {'type': 'AmpOptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.1}, 'loss_scale': 'dynamic'}


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(launch, 'amp_available', lambda: False)


def test_mixed_precision_without_a_gpu_is_one_message(no_gpu, toy, tmp_path):
    with pytest.raises(UserError, match=r'(?s)needs a GPU.*optim_wrapper\.type=OptimWrapper'):
        Runner.from_cfg(config(tmp_path, optim_wrapper=AMP)).train()
    with pytest.raises(UserError, match='needs a GPU'):
        launch.check_amp({**AMP, 'type': AmpOptimWrapper})
    Runner.from_cfg(config(tmp_path, optim_wrapper=AMP))  # a test run does not need it


def test_the_same_optimizer_in_full_precision():
    plain = launch.without_amp({**AMP, 'dtype': 'bfloat16', 'accumulative_counts': 2})
    assert plain == {'type': 'OptimWrapper', 'optimizer': AMP['optimizer'], 'accumulative_counts': 2}
    assert launch.uses_amp(AMP) and not launch.uses_amp(plain) and not launch.uses_amp({'type': OptimWrapper})


def test_bfloat16_on_a_gpu_without_it(monkeypatch):
    monkeypatch.setattr(launch, 'amp_available', lambda: True)
    monkeypatch.setattr(launch, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(launch.torch.cuda, 'is_bf16_supported', lambda: False)
    launch.check_amp(AMP)
    with pytest.raises(UserError, match='dtype=float16'):
        launch.check_amp({**AMP, 'dtype': 'bfloat16'})
