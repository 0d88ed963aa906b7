import subprocess
import sys

import numpy as np
import pytest
import torch

from vfd.stores.ragged import Ragged

SAMPLES = [np.arange(8.0).reshape(2, 4), np.zeros((0, 4)), np.ones((1, 4))]


@pytest.mark.parametrize('convert', [np.asarray, torch.from_numpy])
def test_of_and_split_are_inverse(convert):
    samples = [convert(sample) for sample in SAMPLES]
    ragged = Ragged.of(samples)
    assert type(ragged.values) is type(ragged.counts) is type(samples[0])
    assert ragged.values.shape == (3, 4) and ragged.counts.tolist() == [2, 0, 1] and len(ragged) == 3
    assert ragged.values.dtype == samples[0].dtype
    for part, sample in zip(ragged.split(), samples, strict=True):
        np.testing.assert_array_equal(part, sample)


def test_gradients_flow_through():
    leaf = torch.ones(2, 4, requires_grad=True)
    Ragged.of([leaf, 2 * leaf]).split()[1].sum().backward()
    assert leaf.grad.eq(2).all()


def test_counts_that_do_not_add_up():
    with pytest.raises(ValueError, match=r'3 rows.*\[2, 2\]'):
        Ragged(np.zeros((3, 4)), np.array([2, 2]))
    with pytest.raises(ValueError, match='at least one'):
        Ragged.of([])


def test_torch_is_not_imported():
    code = 'import sys; from vfd.stores.ragged import Ragged; print("torch" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['False']
