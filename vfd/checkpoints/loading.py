"""Put tensors into a module, completely or not at all, and report every one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vfd.checkpoints import mae_layouts
from vfd.checkpoints.pos_embed import Resize, resize_position_embedding
from vfd.checkpoints.state import StateFile
from vfd.errors import UserError


@dataclass
class LoadReport:
    """The outcome of loading, tensor by tensor.

    Attributes:
        loaded: the module's names that got a tensor.
        unused: the file's names that the module has no place for (or, where not needed, another shape).
        reshaped: the module's names whose tensor was resized or transposed on the way.
        missing: the module's names that were not needed and keep their values.
        prefix: the file's prefix under which the tensors were found.
        source: the file.
    """

    loaded: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    prefix: str = ''
    source: str = ''

    def summary(self) -> str:
        """Return one line with the four counts."""
        under = f' (under "{self.prefix}")' if self.prefix else ''
        return (
            f'{self.source}{under}: {len(self.loaded)} tensors loaded, {len(self.unused)} unused, '
            f'{len(self.reshaped)} reshaped, {len(self.missing)} left as built'
        )


def load_into(
    module: nn.Module,
    state: StateFile | Mapping[str, Tensor],
    *,
    needed: Callable[[str], bool] | None = None,
    prefix: str = '',
    rename: Mapping[str, str] | None = None,
    source_name: str = '',
    resize_pos_embed: bool | Resize = False,
) -> LoadReport:
    """Load tensors into ``module``; on any error the module is untouched.

    Where no ``prefix`` is given and the plain names do not fit, the one prefix under which all needed tensors
    lie is taken (``student.``, ``backbone.timm_model.`` ...) and reported. Two such prefixes are an error.

    Args:
        module: any module on a real device. Tensors are cast to its dtypes.
        state: what `load_state` returned, or plain tensors by name.
        needed: whether a name of ``module.state_dict()`` has to come from the file. Default: all
            of them. ``num_batches_tracked`` counters are never needed. Names that are not needed are loaded
            when they fit.
        prefix: take only the file's names that start so, without it: ``'Teacher.'``, ``'student.'``.
        rename: replaces the start of names, after ``prefix`` is gone: ``{'head.fc.': 'fc.'}``.
        source_name: how errors and the report call the source; default: the file's path.
        resize_pos_embed: allow a position embedding of another grid, interpolated by the rule named, see
            `resize_position_embedding`; True takes timm's.

    Returns:
        The report.

    Raises:
        UserError: a needed tensor is missing or has another shape; the text names the tensors, the file and
            the fix.
    """
    tensors = state.state if isinstance(state, StateFile) else state
    source = source_name or (str(state.path) if isinstance(state, StateFile) else 'the given tensors')
    targets = {k: v for k, v in module.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    assert not any(v.is_meta for v in targets.values()), 'load_into needs a module on a real device'
    wanted = [k for k in targets if not k.endswith('num_batches_tracked') and (needed is None or needed(k))]
    if any(k.endswith('patch_embed.proj.weight') for k in wanted) and mae_layouts.is_mmpretrain(tensors):
        tensors = mae_layouts.from_mmpretrain(tensors)  # only here is it clear that timm's names are needed
    prefix = prefix or _find_prefix(tensors, wanted, rename or {}, source)
    available = {_renamed(k[len(prefix) :], rename or {}): k for k in tensors if k.startswith(prefix)}
    if not available:
        starts = sorted({k.split('.')[0] for k in tensors})
        raise UserError(
            f'{source} has no tensor under "{prefix}"; its names start with: {", ".join(starts[:10])}.'
        )

    linear = _linear_weights(module) if isinstance(state, StateFile) and state.layout == 'paddle' else set()
    report = LoadReport(prefix=prefix, source=source)
    fitted: dict[str, Tensor] = {}
    misfits: list[str] = []
    for name, target in targets.items():
        if name not in available:
            report.missing.append(name)
            continue
        value = tensors[available[name]]
        if id(target) in linear and value.ndim == 2:
            value = value.t()
            report.reshaped.append(name)
        if value.shape != target.shape and resize_pos_embed and name.endswith('pos_embed'):
            rule = 'timm' if resize_pos_embed is True else resize_pos_embed
            value = resize_position_embedding(value, target, module, rule)
            report.reshaped.append(name)
        if value.shape == target.shape:
            fitted[name] = value
        elif name in wanted:
            misfits.append(f'{name}: file {tuple(value.shape)}, model {tuple(target.shape)}')
        else:
            report.missing.append(name)
    absent = [k for k in report.missing if k in set(wanted)]
    report.loaded = list(fitted)
    used = {available[name] for name in fitted}
    report.unused = [k for k in tensors if k not in used]
    if absent or misfits:
        raise UserError(_refusal(module, source, absent, misfits, report, len(wanted)))
    with torch.no_grad():
        outcome = module.load_state_dict({**module.state_dict(), **fitted}, strict=False)
    assert not outcome.unexpected_keys, outcome.unexpected_keys
    return report


def _find_prefix(
    tensors: Mapping[str, Tensor], wanted: list[str], rename: Mapping[str, str], source: str
) -> str:
    """Return the prefix under which all needed names lie; '' when the plain names fit or nothing does."""
    if not wanted or rename or all(k in tensors for k in wanted):
        return ''
    first = wanted[0]
    prefixes = {k[: -len(first)] for k in tensors if k.endswith(f'.{first}')}
    fitting = sorted(p for p in prefixes if all(p + k in tensors for k in wanted))
    if len(fitting) > 1:
        choices = ' or '.join(f'prefix={p!r}' for p in fitting)
        raise UserError(f'{source} holds several networks that fit: choose one with {choices}.')
    return fitting[0] if fitting else ''


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    """Replace the longest start of ``name`` that ``rename`` contains."""
    start = max((old for old in rename if name.startswith(old)), key=len, default=None)
    return name if start is None else rename[start] + name[len(start) :]


def _linear_weights(module: nn.Module) -> set[int]:
    """Return the identities of all Linear weights: Paddle stores them as [in, out]."""
    return {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}


def _refusal(
    module: nn.Module, source: str, absent: list[str], misfits: list[str], report: LoadReport, count: int
) -> str:
    """Describe what does not fit and how to fix it."""
    lines = [f'{source} does not fit {type(module).__name__}; nothing was loaded.']
    if absent:
        lines.append(f'Missing {len(absent)} of {count} needed tensors: {_some(absent)}.')
    if misfits:
        lines.append(f'Another shape: {_some(misfits)}.')
    if report.unused:
        lines.append(
            f'The file also has {len(report.unused)} tensors without a place here: {_some(report.unused)}.'
        )
    if misfits and not absent and all('pos_embed' in m for m in misfits):
        lines.append(
            'Pass resize_pos_embed=True to interpolate the position embedding, or build the same image size.'
        )
    elif misfits and not absent and len(misfits) <= 2:
        lines.append(
            'If this is the classifier, give the model the number of classes of the file, or leave it out.'
        )
    else:
        lines.append(
            'Check that the file belongs to this model and configuration, or choose a part with prefix=.'
        )
    return ' '.join(lines)


def _some(names: list[str], limit: int = 4) -> str:
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
