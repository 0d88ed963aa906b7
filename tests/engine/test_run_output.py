"""What a run writes: a log without listings, and nothing when it never began."""

import pytest
import torch
from mmengine.model import BaseModule

from vfd.engine.quiet import quiet_init_weights


def log_of(folder):
    (path,) = folder.glob('*/*.log')
    return path.read_text()


@pytest.mark.parametrize('level', ['INFO', 'DEBUG'])
def test_hooks_and_init_weights_are_logged_for_debugging_only(toy, tmp_path, capfd, level):
    toy.train(tmp_path, length=1, log_level=level)
    log, console = log_of(tmp_path), ''.join(capfd.readouterr())
    assert ('Hooks will be executed' in log) == ('Initialization information' in log) == (level == 'DEBUG')
    assert 'System environment' in log and 'loss_ce' in log  # for reports of faults
    assert 'loss_ce' in console and ('System environment' in console) == (level == 'DEBUG')


def test_a_module_is_initialised_without_a_line_a_parameter(capfd):
    module = BaseModule(init_cfg={'type': 'Constant', 'layer': 'Linear', 'val': 3.0})
    module.layer = torch.nn.Linear(2, 2)
    with quiet_init_weights(module):
        module.init_weights()
    assert (module.layer.weight == 3).all() and '_dump_init_info' not in vars(module)
    assert 'layer.weight' not in ''.join(capfd.readouterr())


def test_a_start_that_fails_leaves_no_folder(toy, tmp_path):
    class Fails(toy.Hook):
        def __init__(self, where):
            setattr(self, where, self.fail)

        def fail(self, *args, **kwargs):
            raise ValueError

    for hook in (Fails('before_run'), {'type': 'NoSuchHook'}):
        with pytest.raises((ValueError, KeyError)):
            toy.train(tmp_path / 'new/run', custom_hooks=[hook])
        assert not (tmp_path / 'new').exists()
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old/notes.txt').touch()
    with pytest.raises(ValueError):
        toy.train(tmp_path / 'old', custom_hooks=[Fails('before_run')])
    assert [path.name for path in (tmp_path / 'old').iterdir()] == ['notes.txt']
    with pytest.raises(ValueError):
        toy.train(tmp_path / 'begun', custom_hooks=[Fails('before_train_iter')])
    assert list((tmp_path / 'begun').glob('*/*.log'))


def test_iterations_are_logged_as_iterations(toy, tmp_path):
    runner = toy.make_runner(tmp_path, by_epoch=False, length=6)
    assert runner.log_processor.by_epoch is False
    assert toy.make_runner(tmp_path, length=1).log_processor.by_epoch is True
