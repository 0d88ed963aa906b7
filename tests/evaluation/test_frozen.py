"""The frozen backbone of a probe: complete, or refused."""

from __future__ import annotations

import pytest
import torch
from ph_reg_toy import CLIP, VIT, images, network

from vfd.errors import UserError
from vfd.evaluation import FrozenBackbone

KINDS = {'vit': VIT, 'clip': CLIP}
BOTH = pytest.mark.parametrize('kind', list(KINDS))


@BOTH
def test_random_tensors_are_refused_at_the_first_image_unless_they_are_wanted(kind, tmp_path):
    plain = network(kind, num_registers=0)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    torch.save(network(kind).state_dict(), tmp_path / 'registers.pth')
    registers = 'reg_token' if kind == 'vit' else 'register_tokens'
    batch = images(1, 28, 28)
    with pytest.raises(UserError, match=r'tensors of the frozen .* are random'):
        FrozenBackbone(KINDS[kind])(batch)
    half = FrozenBackbone({**KINDS[kind], 'checkpoint': str(tmp_path / 'plain.pth')})
    for look in (half, half.forward_with_cls):
        with pytest.raises(UserError, match=f'1 of .* random, the first is {registers}.*num_registers=0'):
            look(batch)
    for checkpoint in ('registers.pth', 'random'):
        path = checkpoint if checkpoint == 'random' else str(tmp_path / checkpoint)
        FrozenBackbone({**KINDS[kind], 'checkpoint': path})(batch)
    whole = FrozenBackbone({**KINDS[kind], 'checkpoint': str(tmp_path / 'plain.pth'), 'num_registers': 0})
    with torch.no_grad():
        assert whole(batch)[0].equal(plain(batch)[0])


@BOTH
def test_a_checkpoint_of_the_probe_makes_it_complete(kind):
    given = FrozenBackbone({**KINDS[kind], 'checkpoint': 'random'})
    loaded = FrozenBackbone(KINDS[kind])
    loaded.load_state_dict(given.state_dict())
    batch = images(1, 28, 28)
    assert loaded(batch)[0].equal(given(batch)[0])
