"""A run that is killed and resumed equals the run that was not, bit by bit."""

import random
import shutil
import signal

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from vfd.engine.resume import _differing
from vfd.errors import UserError

ITERATIONS = 21  # 3 epochs of 7 batches

CASES = {
    'epoch': {},
    'epoch, saved at its end': {'checkpoint': {'by_epoch': True, 'interval': 1}, 'optimizer': 'AdamW'},
    'epoch, accumulation, workers': {'accumulate': 3, 'optimizer': 'AdamW', 'workers': 2},
    'iterations': {'by_epoch': False, 'length': ITERATIONS, 'val_interval': 5, 'optimizer': 'AdamW'},
    'iterations, accumulation': {
        'by_epoch': False,
        'length': ITERATIONS,
        'val_interval': 5,
        'accumulate': 4,
        'every': 3,
    },
    'iterations, finite sampler, workers': {
        'by_epoch': False,
        'length': ITERATIONS,
        'val_interval': 7,
        'sampler': 'DefaultSampler',
        'workers': 2,
    },
}


class CpuAmp(AmpOptimWrapper):
    """Mixed precision with a live loss scaler, without a GPU (mmengine's own constructor needs one)."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=16.0, growth_interval=3)
        self.cast_dtype = torch.bfloat16


CASES['mixed precision'] = {'optim_wrapper': CpuAmp, 'accumulate': 2, 'every': 3}


def assert_continues(toy, whole, rest):
    """``rest`` is the end of ``whole``: its last steps, and the same state afterwards."""
    for key in ('losses', 'files'):
        expected = {iteration: value for iteration, value in whole[key].items() if iteration in rest[key]}
        toy.assert_same(expected, rest[key], key)
    assert (
        rest['validated_at']
        == whole['validated_at'][len(whole['validated_at']) - len(rest['validated_at']) :]
    )
    for key in ('weights', 'optimizer', 'ema', 'schedulers', 'queue', 'generators', 'logged'):
        toy.assert_same(whole[key], rest[key], key)


@pytest.mark.parametrize('case', CASES)
def test_killed_run_continues_exactly(case, toy, tmp_path):
    options = CASES[case]
    whole = toy.train(tmp_path / 'whole', **options)
    at = random.randrange(8, ITERATIONS)
    print(f'killed at iteration {at}')  # shown when the test fails
    killer = toy.KillAt(at, after=random.random() < 0.5)
    code, _ = toy.run_apart(toy.train, tmp_path / 'out', tmp_path / 'run', custom_hooks=[killer], **options)
    assert code == -signal.SIGKILL
    rest = toy.train(tmp_path / 'run', resume=True, **options)
    assert 0 < len(rest['losses']) < ITERATIONS
    assert_continues(toy, whole, rest)


def test_killed_again_and_again(toy, tmp_path):
    whole = toy.train(tmp_path / 'whole')
    for at in (5, 7, 14):  # 7 and 14 are first batches of an epoch
        options = {'custom_hooks': [toy.KillAt(at)], 'resume': True}
        code, _ = toy.run_apart(toy.train, tmp_path / 'out', tmp_path / 'run', **options)
        assert code == -signal.SIGKILL
    assert_continues(toy, whole, toy.train(tmp_path / 'run', resume=True))


def test_resume_from_the_last_batch_of_an_epoch(toy, tmp_path):
    """The checkpoint is of batch 7 of 7: what follows is the end of the epoch and its validation."""
    whole = toy.train(tmp_path / 'whole', every=7)
    rest = toy.train(
        tmp_path / 'run', resume=True, load_from=str(tmp_path / 'whole' / 'iter_14.pth'), every=7
    )
    assert sorted(rest['losses']) == list(range(14, 21))
    assert [at for at, _ in rest['validated_at']] == [14, 21]
    assert_continues(toy, whole, rest)


def test_a_best_checkpoint_saved_by_the_validation_is_not_validated_again(toy, tmp_path):
    options = {'checkpoint': {'by_epoch': True, 'interval': 1, 'save_best': 'acc', 'rule': 'greater'}}
    whole = toy.train(tmp_path / 'whole', length=1, **options)
    assert len(whole['validated_at']) == 1
    rest = toy.train(tmp_path / 'whole', length=2, resume=True, **options)
    assert [at for at, _ in rest['validated_at']] == [14]


def test_the_seed_of_the_checkpoint_wins_when_none_was_chosen(toy, tmp_path):
    whole = toy.train(tmp_path / 'run', randomness={'seed': None})
    for name in ('last_checkpoint', 'iter_20.pth', 'iter_21.pth'):
        (tmp_path / 'run' / name).unlink()
    assert_continues(toy, whole, toy.train(tmp_path / 'run', randomness={'seed': None}, resume=True))


def test_workers_change_nothing(toy, tmp_path):
    one = toy.train(tmp_path / 'one', val=False)
    for workers, loader in ((1, {}), (2, {'persistent_workers': True})):
        other = toy.train(tmp_path / str(workers), workers=workers, loader=loader, val=False)
        toy.assert_same(one, other)


def test_validation_changes_nothing(toy, tmp_path):
    one = toy.train(tmp_path / 'one', val=False)
    other = toy.train(tmp_path / 'other', val=True)
    toy.assert_same(one['weights'], other['weights'])


def test_augmentation_is_new_in_every_epoch(toy, tmp_path):
    runner = toy.make_runner(tmp_path, length=1, workers=0)
    loader = runner.build_train_dataloader(runner._train_dataloader)
    seen = []
    for epoch in (0, 1, 0):
        loader.seek(epoch, 0)
        samples = {s.img_path: x for batch in loader for x, s in zip(*batch.values(), strict=True)}
        seen.append(torch.stack([samples[name] for name in sorted(samples)]))
    assert torch.equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).all()


def test_seeking_reads_nothing(toy, tmp_path):
    runner = toy.make_runner(tmp_path, by_epoch=False, length=10)
    loader = runner.build_train_dataloader(runner._train_dataloader)
    loader.stream.dataset.bad = set(range(26))  # any reading would end in an error
    loader.seek(0, 500)
    with pytest.raises(UserError, match='none can be used'):
        next(iter(loader))
    loader.stream.dataset.bad = set()
    loader = runner.build_train_dataloader(runner._train_dataloader)
    first = [s.img_path for batch, _ in zip(loader, range(5), strict=False) for s in batch['data_samples']]
    loader = runner.build_train_dataloader(runner._train_dataloader)
    loader.seek(0, 3)
    later = [s.img_path for batch, _ in zip(loader, range(2), strict=False) for s in batch['data_samples']]
    assert later == first[12:]


def test_another_epoch_length_is_refused_in_the_middle_of_an_epoch(toy, tmp_path):
    toy.train(tmp_path / 'run', length=1, every=3, checkpoint={'save_last': False})
    with pytest.raises(UserError, match='middle of an epoch of 7 batches a process, now an epoch has 4'):
        toy.train(tmp_path / 'run', resume=True, batch_size=8)


def test_another_model_is_refused(toy, tmp_path):
    toy.train(tmp_path / 'run', length=1)
    runner = toy.make_runner(tmp_path / 'run', resume=True)
    runner.model.net[3] = torch.nn.Linear(16, 4)
    with pytest.raises(UserError, match='not of the model in this config'):
        runner.train()


class Teacher:
    def __init__(self, name):
        self.name = name
        self.seconds = 0.0

    def fingerprint(self):
        return {'source': self.name, 'taps': ['logits']}


def test_another_teacher_is_refused(toy, tmp_path):
    for name in ('large', 'small'):
        runner = toy.make_runner(tmp_path / 'run', length=1, resume=True)
        runner.model.teacher = Teacher(name)
        if name == 'large':
            runner.train()
        else:
            with pytest.raises(UserError, match="source: 'large' in the checkpoint, 'small' now"):
                runner.train()
    meta = torch.load(tmp_path / 'run' / 'iter_7.pth', weights_only=True)['meta']
    assert meta['vfd']['teacher'] == {'source': 'large', 'taps': ['logits']}


@pytest.mark.parametrize(
    ('then', 'now', 'names'),
    [
        ({'bn': 'eval'}, {'bn': 'eval', 'resize': 'bicubic'}, []),  # older checkpoints know fewer keys
        ({'bn': 'eval', 'settings': {'a': 1}}, {'bn': 'train', 'settings': {'a': 2}}, ['bn', 'settings.a']),
        ({'settings': {'grid': [1, 1]}}, {'settings': {'grid': [1, 1], 'network': {'depth': 3}}}, []),
        ({'settings': {'kwargs': {}}}, {'settings': {'kwargs': {'global_pool': 'max'}}}, ['settings.kwargs']),
        ({'settings': {'prompt': 'a'}}, {'settings': {'prompt': 'b'}}, ['settings.prompt']),
        ({'dtype': 'float32'}, {'dtype': 'auto'}, []),  # the default of older versions, and today's
        ({'dtype': 'auto'}, {'dtype': 'float32'}, ['dtype']),
        ({'dtype': 'bfloat16'}, {'dtype': 'auto'}, ['dtype']),
    ],
)  # fmt: skip
def test_what_makes_another_teacher(then, now, names):
    assert [name for name, *_ in _differing(then, now)] == names


def test_nothing_to_resume_starts_from_the_beginning(toy, tmp_path):
    assert len(toy.train(tmp_path / 'new', length=1, resume=True)['losses']) == 7


def test_a_checkpoint_of_plain_mmengine_continues(toy, tmp_path):
    toy.train(tmp_path / 'run', length=1)
    path = tmp_path / 'run' / 'iter_7.pth'
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint['resume_state'], checkpoint['meta']['vfd']
    torch.save(checkpoint, path)
    checkpoint['meta']['epoch'] = 1
    torch.save(checkpoint, tmp_path / 'run' / 'epoch_1.pth')
    shutil.move(tmp_path / 'run' / 'epoch_1.pth', path)
    assert sorted(toy.train(tmp_path / 'run', length=2, resume=True)['losses']) == list(range(7, 14))


def test_the_loss_scaler_is_a_part_of_it(toy, tmp_path):
    scaler = toy.train(tmp_path, length=1, optim_wrapper=CpuAmp)['optimizer']['loss_scaler']
    assert scaler['scale'] == 64.0 and scaler['_growth_tracker'] == 1  # doubled after 3 and 6 of 7 steps


def test_a_schedule_that_changed_is_said_to_go_on_as_it_was(toy, tmp_path):
    toy.train(tmp_path / 'run', length=1)
    for end, said in ((20, []), (40, ['T_max is 16 (config: 36)', 'end is 20 (config: 40)'])):
        runner = toy.make_runner(tmp_path / 'run', length=1, resume=True, end=end)
        messages = []
        runner.logger.warning = messages.append
        runner.train()
        changes = sorted(message for message in messages if 'schedule of the checkpoint' in message)
        assert len(changes) == len(said)
        assert all(text in message for text, message in zip(said, changes, strict=True))
