"""Comparisons that several golden tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from vfd.engine.schedulers import WarmupCosineByIter

# Published in the spirit of MAE: no decay on vectors and biases, decay on everything else, tokens included.
# The stored images are what networks see.
PREPROCESSOR = {
    'type': 'mmpretrain.SelfSupDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}
NO_DECAY = {'flat_decay_mult': 0.0, 'bias_decay_mult': 0.0, 'norm_decay_mult': 0.0}


def close(ours: Any, reference: Any, tolerance: float = 1e-9, name: str = '') -> None:
    """Equal shapes, and a difference of at most ``tolerance`` times the largest reference value."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    reference = np.asarray(reference)
    assert ours.shape == reference.shape, (name, ours.shape, reference.shape)
    scale = float(np.abs(reference).max()) if reference.size else 0.0
    np.testing.assert_allclose(ours, reference, rtol=0, atol=tolerance * max(scale, 1e-300), err_msg=name)


def equal(ours: Any, reference: Any, name: str = '') -> None:
    """Exactly equal numbers."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    np.testing.assert_array_equal(ours, reference, err_msg=name)


def floats(array: np.ndarray) -> Tensor:
    """A stored array in float64."""
    return torch.from_numpy(np.asarray(array)).double()


def drawn(seed: int, *shape: int, uniform: bool = False) -> Tensor:
    """The stored recipe for data that is not stored: float32 from numpy's legacy generator, in float64."""
    state = np.random.RandomState(int(seed))
    values = state.random_sample(shape) if uniform else state.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32)).double()


def check_gradients(
    case: Any, parameters: Mapping[str, nn.Parameter], prefix: str = '', skip: Iterable[str] = ()
) -> None:
    """Norms of all gradients (NaN or 0: none) and the gradients that are stored whole.

    Args:
        case: the golden case.
        parameters: under the file's names.
        prefix: of the keys in the file.
        skip: names that exist only in the published code and get no gradient there.
    """
    norms = dict(zip(case[f'{prefix}gnorm_names'].tolist(), case[f'{prefix}gnorms'], strict=True))
    assert set(parameters) == set(norms) - set(skip)
    scale = max(norm for norm in norms.values() if not np.isnan(norm))
    for name, norm in norms.items():
        if name in skip:
            assert np.isnan(norm) or norm == 0, name
            continue
        gradient = parameters[name].grad
        if np.isnan(norm):
            assert gradient is None, name
        else:
            np.testing.assert_allclose(gradient.norm(), norm, rtol=1e-9, atol=1e-9 * scale, err_msg=name)
    for name, gradient in case.under(f'{prefix}grad/').items():
        close(parameters[name].grad, gradient, name=name)


def run_epoch(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    losses: Callable[[int], dict[str, Tensor]],
    case: Any,
    args: Mapping[str, Any],
    iterations: int,
    optim_wrapper: dict | None = None,
) -> tuple[list[dict[str, float]], list[float], OptimWrapper]:
    """One epoch through mmengine's optimizer wrapper and our schedule, as the published loop runs it.

    Args:
        model: what is optimized.
        parameters: its trained parameters, by name.
        losses: the terms of iteration i.
        case: with ``epoch``.
        args: ``accum_iter``, ``lr``, ``min_lr``, ``warmup_epochs``, ``epochs``.
        iterations: in the epoch.
        optim_wrapper: its config without the learning rate.

    Returns:
        The terms of every iteration, the learning rates of the updates, and the wrapper.
    """
    accumulate = args['accum_iter']
    config = optim_wrapper or {}
    optimizer = {'type': 'AdamW', 'lr': args['lr'], **config.pop('optimizer')}
    wrapper = build_optim_wrapper(
        model, {'type': 'OptimWrapper', 'optimizer': optimizer, 'accumulative_counts': accumulate, **config}
    )
    wrapper.initialize_count_status(model, 0, iterations)
    schedule = WarmupCosineByIter(
        wrapper,
        warmup=args['warmup_epochs'] * iterations,
        end=args['epochs'] * iterations,
        eta_min_ratio=args['min_lr'] / args['lr'],
        hold=accumulate,
    )
    for _ in range(int(float(case['epoch']) * iterations)):
        schedule.step()
    terms, rates = [], []
    for i in range(iterations):
        parts = losses(i)
        terms.append({name: float(value) for name, value in parts.items()})
        wrapper.update_params(sum(parts.values()))
        if (i + 1) % accumulate == 0:
            rates.append(wrapper.get_lr()['lr'][0])
        schedule.step()
    return terms, rates, wrapper


def check_deltas(
    case: Any,
    parameters: Mapping[str, nn.Parameter],
    before: Mapping[str, Tensor],
    prefix: str = '',
    skip: Iterable[str] = (),
    tolerance: float = 1e-7,
) -> None:
    """What training changed, against the stored norms and the changes that are stored whole."""
    names, norms = case[f'{prefix}delta_names'].tolist(), case[f'{prefix}delta_norms']
    assert set(names) - set(skip) == set(parameters)
    scale = float(np.nanmax(norms))
    for name, norm in zip(names, norms, strict=True):
        if name not in skip:
            delta = (parameters[name].detach() - before[name]).norm()
            np.testing.assert_allclose(
                delta, norm, rtol=tolerance, atol=tolerance * 1e-3 * scale, err_msg=name
            )
    for name, delta in case.under(f'{prefix}delta/').items():
        if name not in skip:
            close(parameters[name].detach() - before[name], delta, tolerance, name)


def decay_groups(wrapper: OptimWrapper, parameters: Mapping[str, nn.Parameter]) -> dict[str, set[str]]:
    """Names of the trained parameters with and without weight decay."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups: dict[str, set[str]] = {'decay': set(), 'no_decay': set()}
    for group in wrapper.optimizer.param_groups:
        kind = 'decay' if group['weight_decay'] else 'no_decay'
        groups[kind] |= {names[id(parameter)] for parameter in group['params'] if parameter.requires_grad}
    return groups
