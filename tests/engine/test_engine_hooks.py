"""Progress, interruption, non-finite losses."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from rich.console import Console

from vfd.engine import NonFiniteHook, ProgressHook
from vfd.errors import UserError

TOY = Path(__file__).with_name('engine_toy.py')


class Signal(Hook):
    """Sends signals to this process, as a terminal or a batch system would."""

    def __init__(self, iteration, *numbers, in_val=False):
        self.iteration, self.numbers, self.in_val = iteration, numbers, in_val

    def _send(self, iteration):
        if iteration == self.iteration:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.in_val:
            self._send(runner.iter)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.in_val:
            self._send(runner.iter)


@pytest.mark.parametrize(
    'sender',
    [Signal(9, signal.SIGINT), Signal(5, signal.SIGTERM), Signal(7, signal.SIGINT, in_val=True)],
    ids=['Ctrl-C', 'SIGTERM', 'validation'],
)
def test_an_interrupted_run_continues_exactly(sender, toy, tmp_path):
    whole = toy.train(tmp_path / 'whole', every=100)
    options = {'every': 100, 'checkpoint': {'save_last': True}}
    code, _ = toy.run_apart(toy.train, tmp_path / 'out', tmp_path / 'run', custom_hooks=[sender], **options)
    assert code == 130
    assert (tmp_path / 'run' / 'interrupted.pth').exists()
    rest = toy.train(tmp_path / 'run', resume=True, **options)
    assert min(rest['losses']) == (7 if sender.in_val else sender.iteration + 1)
    for key in ('weights', 'optimizer', 'ema', 'queue', 'generators', 'logged'):
        toy.assert_same(whole[key], rest[key], key)
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()


def test_the_second_interruption_ends_at_once(toy, tmp_path):
    sender = Signal(4, signal.SIGINT, signal.SIGINT)
    code, _ = toy.run_apart(toy.train, tmp_path / 'out', tmp_path / 'run', custom_hooks=[sender])
    assert code == 130
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()


def test_ctrl_c_in_a_terminal(toy, tmp_path):
    """The signal reaches the workers too."""
    environment = os.environ | {'PYTHONPATH': str(TOY.parents[2])}
    process = subprocess.Popen(
        [sys.executable, TOY, tmp_path],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / 'iter_5.pth').exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert 'Traceback' not in output and 'exited unexpectedly' not in output
    assert 'finishing this step' in output and '--resume' in output
    assert Path((tmp_path / 'last_checkpoint').read_text()).exists()


def test_signals_are_given_back(toy, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    toy.train(tmp_path / 'a', length=1)
    with pytest.raises(UserError):
        toy.train(tmp_path / 'b', nan_at=2)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_stops_before_the_update(toy, tmp_path):
    good = toy.train(tmp_path / 'good', length=1)
    runner = toy.make_runner(tmp_path / 'run', nan_at=5, every=4)
    with pytest.raises(UserError, match=r'iteration 5 \(loss_ce = nan\).*Nothing was updated') as error:
        runner.train()
    assert all(name in str(error.value) for name in good['files'][4])
    saved = torch.load(tmp_path / 'run' / 'iter_4.pth', weights_only=True)['ema_state_dict']
    for name, value in runner.model.state_dict().items():
        assert torch.equal(saved[f'module.{name}'], value)


def test_on_a_gpu_the_loss_is_read_after_the_update(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(NonFiniteHook, '_after_forward', lambda *args: None)  # what it comes to there
    with pytest.raises(UserError, match=r'iteration 4 .*were updated with it; the last checkpoint was not'):
        toy.train(tmp_path, nan_at=4)
    assert not (tmp_path / 'iter_4.pth').exists()


def test_a_loss_that_is_not_finite_can_be_skipped(toy, tmp_path):
    hooks = {'non_finite': {'type': NonFiniteHook, 'action': 'skip'}}
    run = toy.train(tmp_path, nan_at=5, hooks=hooks)
    assert [iteration for iteration, loss in run['losses'].items() if loss is None] == [4]
    assert all(torch.isfinite(value).all() for value in run['weights'].values())
    assert len(run['losses']) == 21


def test_skipping_is_an_action():
    with pytest.raises(UserError, match='expected "stop" or "skip"'):
        NonFiniteHook(action='ignore')


class Teacher:
    seconds = 0.0

    def fingerprint(self):
        return {}


class SlowTeacher(Hook):
    """Spends time in the teacher within the step, and in a hook."""

    priority = 'LOWEST'

    def before_train(self, runner):
        model = runner.model
        forward = model.forward

        def ask_first(*args, **kwargs):
            time.sleep(0.01)
            model.teacher.seconds += 0.01
            return forward(*args, **kwargs)

        model.forward = ask_first

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.01)


def test_time_shares(toy, tmp_path):
    runner = toy.make_runner(
        tmp_path, length=1, hooks={'progress': {'type': ProgressHook, 'interval': 3}}, val=False
    )
    runner.model.teacher = Teacher()
    runner.register_hook(SlowTeacher())
    runner.train()
    scalars = runner.message_hub.log_scalars
    shares = {
        name: scalars[f'train/time_share/{name}'].data[0]
        for name in ('data', 'teacher', 'student', 'optimizer')
    }
    assert all(len(values) == 2 for values in shares.values())  # of 7 iterations
    assert sum(values[0] for values in shares.values()) == pytest.approx(1.0)
    assert shares['teacher'][1] > max(shares['data'][1], shares['optimizer'][1]) > 0.0


def test_a_bar_on_a_terminal(toy, tmp_path):
    output = io.StringIO()
    hook = ProgressHook(interval=2)
    hook.console = Console(file=output, force_terminal=True, width=200)
    runner = toy.make_runner(tmp_path, length=1, hooks={'progress': hook})
    streams = [getattr(handler, 'stream', None) for handler in runner.logger.handlers]
    runner.train()
    assert '7/7' in output.getvalue() and 'loss_ce' in output.getvalue() and 'teacher 0%' in output.getvalue()
    assert [getattr(handler, 'stream', None) for handler in runner.logger.handlers] == streams


def test_no_bar_elsewhere(toy, tmp_path, capfd):
    toy.train(tmp_path, length=1)
    assert '7/7' not in capfd.readouterr().out


def test_hooks_can_be_switched_off(toy, tmp_path):
    off = dict.fromkeys(('progress', 'interrupt', 'non_finite', 'bad_data'))
    found = {type(hook).__name__ for hook in toy.make_runner(tmp_path, hooks=off).hooks}
    assert found.isdisjoint({'ProgressHook', 'InterruptHook', 'NonFiniteHook', 'BadDataHook'})
    found = {type(hook).__name__ for hook in toy.make_runner(tmp_path).hooks}
    assert found >= {'ProgressHook', 'InterruptHook', 'NonFiniteHook', 'BadDataHook'}


def test_tensorboard_gets_losses_and_shares(toy, tmp_path):
    event_accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    visualizer = {
        'type': 'Visualizer',
        'vis_backends': [{'type': 'TensorboardVisBackend'}],
        'name': 'toy_board',
    }
    runner = toy.make_runner(tmp_path, length=20, by_epoch=False, val_interval=10, visualizer=visualizer)
    runner.train()
    board = event_accumulator.EventAccumulator(str(next(tmp_path.rglob('events*')).parent))
    board.Reload()
    assert {'loss', 'lr', 'acc', 'time_share/data', 'time_share/student'} <= set(board.Tags()['scalars'])
