"""Finding mistakes in a config that mmengine would ignore or meet with a traceback.

mmengine passes the keys it reads and drops the rest: a misspelt ``param_sheduler`` means no schedule. Here every
key at a place where it would be dropped or refused is compared with what is accepted there, and every ``type`` is
looked up; the message suggests what was probably meant.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from vfd.engine.launch import check_strategy
from vfd.errors import MissingPackageError, UserError, did_you_mean

SCOPES = {
    'mmpretrain': 'classification',
    'mmdet': 'detection',
    'mmseg': 'segmentation',
    'vfd': '',
    'mmengine': '',
}

# What Runner.from_cfg and the runner's later steps read, and what vfd adds.
TOP_LEVEL_KEYS = {
    *(name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')),
    'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'activation_checkpointing', 'efficient_conv_bn_eval',
    'compile', 'runner_type', 'strategy', 'custom_imports', 'tta_model', 'tta_pipeline', 'strict_data', 'baseline',
    'search', 'example_inputs',
}  # fmt: skip

# In which registry the `type` of a part is looked up: top-level parts, then parts of parts.
REGISTRY_OF_KEY: dict[str, Registry | None] = {
    'model': roots.MODELS,
    'tta_model': roots.MODELS,
    'data_preprocessor': roots.MODELS,
    'optim_wrapper': roots.OPTIM_WRAPPERS,
    'param_scheduler': roots.PARAM_SCHEDULERS,
    'train_cfg': roots.LOOPS,
    'val_cfg': roots.LOOPS,
    'test_cfg': roots.LOOPS,
    'train_dataloader': None,  # a data loader has no type
    'val_dataloader': None,
    'test_dataloader': None,
    'val_evaluator': roots.METRICS,
    'test_evaluator': roots.METRICS,
    'custom_hooks': roots.HOOKS,
    'visualizer': roots.VISUALIZERS,
    'log_processor': roots.LOG_PROCESSORS,
}
DATALOADER_PARTS = {
    'dataset': roots.DATASETS,
    'sampler': roots.DATA_SAMPLERS,
    'batch_sampler': roots.DATA_SAMPLERS,
    'collate_fn': roots.FUNCTIONS,
    'worker_init_fn': roots.FUNCTIONS,
}
PARTS: dict[Registry, dict[str, Registry]] = {
    roots.DATASETS: {'dataset': roots.DATASETS, 'datasets': roots.DATASETS, 'pipeline': roots.TRANSFORMS},
    roots.TRANSFORMS: {'transforms': roots.TRANSFORMS},
    roots.OPTIM_WRAPPERS: {'optimizer': roots.OPTIMIZERS},
    roots.VISUALIZERS: {'vis_backends': roots.VISBACKENDS},
}
# Parts of a model that a registry always builds. Elsewhere in a model a package may read a `type` in its own way
# (nms=dict(type='nms'), norm_cfg=dict(type='BN')), and an unknown one is left to the builder.
BUILT_PARTS = re.compile(
    r'model|student|teacher|source|backbone|neck|.*head|.*loss|loss_.*|data_preprocessor'
)
DEFAULT_TYPES = {'optim_wrapper': 'OptimWrapper', 'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}

DATALOADER_KEYS = {
    *inspect.signature(DataLoader.__init__).parameters, 'num_batch_per_epoch', 'disable_subprocess_warning',
    'strict_data',
} - {'self'}  # fmt: skip

# Dicts without a type of their own (or whose type others interpret): key -> what is read from them.
PLAIN_DICTS: dict[str, set[str]] = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'custom_imports': {'imports', 'allow_failed_imports'},
}

DEFAULT_PARAMWISE_KEYS = {
    'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
    'dcn_offset_lr_mult', 'bypass_duplicate',
}  # fmt: skip

DEFAULT_HOOKS = {
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
    'visualization',
}

# Read by the runner beside the arguments of the class that is built.
EXTRA_KEYS = {
    'optim_wrapper': {'optimizer', 'constructor', 'paramwise_cfg'},
    'param_scheduler': {'convert_to_iter_based'},
    'train_cfg': {'by_epoch'},
    'hooks': {'priority'},
    'custom_hooks': {'priority'},
}


def check_config(config: Config) -> None:
    """Check every key and type that a config has at the places mmengine reads.

    Raises:
        UserError: a key that would be ignored or refused, or a type that is not registered; with a suggestion.
        MissingPackageError: a type of an OpenMMLab package that is not installed; with the command.
    """
    scope = config.get('default_scope') or 'mmengine'
    _need_package(scope)
    check_strategy(config)
    _check_parts(config, '', scope)
    baseline = config.get('baseline') or {}
    for name in baseline:
        if name not in TOP_LEVEL_KEYS:
            raise UserError(f'baseline.{name} is no key of a config{did_you_mean(name, TOP_LEVEL_KEYS)}')
    _check_parts(baseline, 'baseline.', scope)


def _check_parts(config: Mapping[str, Any], prefix: str, scope: str) -> None:
    """Check the top-level parts of a config, or of what a config holds for its supervised baseline."""
    for name, node in config.items():
        if name in PLAIN_DICTS:
            _check_plain(node, name)
        elif name in REGISTRY_OF_KEY:
            _walk(node, prefix + name, name, REGISTRY_OF_KEY[name], scope)
    for name, hook in (config.get('default_hooks') or {}).items():
        hint = did_you_mean(name, DEFAULT_HOOKS)
        if name not in DEFAULT_HOOKS and hint:
            raise UserError(f'default_hooks.{name} would be added beside the default hooks{hint}')
        _walk(hook, f'{prefix}default_hooks.{name}', 'hooks', roots.HOOKS, scope)


def _check_plain(node: Any, path: str) -> None:
    if not isinstance(node, Mapping):
        return
    _refuse_unknown(node, PLAIN_DICTS[path], path)
    for name, part in node.items():
        if f'{path}.{name}' in PLAIN_DICTS:
            _check_plain(part, f'{path}.{name}')


def _walk(node: Any, path: str, place: str, registry: Registry | None, scope: str) -> None:
    """Check ``node`` and what lies below.

    Args:
        node: a part of the config.
        path: where it is, for messages.
        place: the key that it stands under.
        registry: where its type is looked up; None for a data loader.
        scope: the default scope.
    """
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            _walk(item, f'{path}[{i}]', place, registry, scope)
        return
    if not isinstance(node, Mapping):
        return
    scope = node.get('_scope_', scope)
    if registry is None:
        _refuse_unknown(node, DATALOADER_KEYS, path)
    else:
        _check_type(node, path, place, registry, scope)
    if registry is roots.OPTIM_WRAPPERS and 'constructor' not in node:
        _check_paramwise(node.get('paramwise_cfg') or {}, f'{path}.paramwise_cfg')
    parts = DATALOADER_PARTS if registry is None else PARTS.get(registry, {})
    for name, part in node.items():
        if registry is roots.MODELS and not name.endswith(
            '_cfg'
        ):  # init_cfg, test_cfg ... are read by the object that holds them
            _walk(part, f'{path}.{name}', name, roots.MODELS, scope)
        elif name in parts:
            _walk(part, f'{path}.{name}', name, parts[name], scope)


def _check_type(node: Mapping[str, Any], path: str, place: str, registry: Registry, scope: str) -> None:
    """Check the type of one dict, and that its class takes the other keys."""
    kind = node.get('type', DEFAULT_TYPES.get(place))
    if kind is None and place == 'train_cfg':
        kind = 'EpochBasedTrainLoop' if node.get('by_epoch', True) else 'IterBasedTrainLoop'
    if kind is None:
        return
    strict = registry is not roots.MODELS or BUILT_PARTS.fullmatch(place) is not None
    target = _resolve(kind, path, registry, scope, strict)
    accepted = accepted_keys(target) if target is not None else None
    if accepted is not None:
        _refuse_unknown(
            node,
            accepted | EXTRA_KEYS.get(place, set()) | {'type', '_scope_', '_delete_'},
            f'{path} ({_name(target)})',
        )


def _check_paramwise(rules: Mapping[str, Any], path: str) -> None:
    _refuse_unknown(rules, DEFAULT_PARAMWISE_KEYS, path)
    for name, rule in (rules.get('custom_keys') or {}).items():
        _refuse_unknown(rule, {'lr_mult', 'decay_mult'}, f'{path}.custom_keys[{name!r}]')


def _refuse_unknown(node: Mapping[str, Any], accepted: Iterable[str], path: str) -> None:
    accepted = set(accepted)
    if path.startswith('baseline'):  # merged later
        accepted.add('_delete_')
    for name in node:
        if name not in accepted:
            hint = (
                did_you_mean(name, accepted)
                or f'; it takes {", ".join(sorted(accepted - {"type", "_scope_", "_delete_"}))}'
            )
            raise UserError(f'config key {path}: "{name}" is not known there{hint}')


def accepted_keys(target: Callable[..., Any]) -> set[str] | None:
    """Return the keyword arguments that a class or function takes; None when it takes any.

    ``**kwargs`` is followed to the base class when it is handed on with ``super().__init__(..., **kwargs)``.
    """
    if not inspect.isclass(target):
        parameters = inspect.signature(target).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in parameters}
    names: set[str] = set()
    for cls in target.__mro__:
        init = cls.__dict__.get('__init__')
        if init is None:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
            source = inspect.getsource(init)
        except (TypeError, ValueError, OSError):  # written in C
            return None
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        keywords = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not keywords:
            return names - {'self'}
        handed_on = re.search(rf'super\([^)]*\)\.__init__\([^)]*\*\*{keywords[0]}', source, re.DOTALL)
        if cls is CheckpointHook:  # hands them to the runner at every save
            return (names | set(inspect.signature(Runner.save_checkpoint).parameters)) - {'self'}
        if not handed_on or re.search(rf'\b{keywords[0]}(\.|\[)', source):
            return None
    return None


def _resolve(kind: Any, path: str, registry: Registry, scope: str, strict: bool) -> Callable[..., Any] | None:
    """Return the class behind a ``type``.

    Args:
        kind: a registered name, with or without scope, or the class itself.
        path: where it stands, for messages.
        registry: mmengine's root registry of that kind.
        scope: the default scope.
        strict: raise when it is not registered, otherwise return None.
    """
    if not isinstance(kind, str):
        return kind
    prefix, _, _ = kind.rpartition('.')
    if prefix in SCOPES:
        _need_package(prefix)
    try:
        found = _scoped(registry, scope).get(kind)
    except RuntimeError:  # mmengine raises it for a name with an unknown prefix
        found = None
    if found is None and registry is roots.METRICS:
        found = _scoped(roots.EVALUATOR, scope).get(kind)
    if found is None and (strict or prefix in SCOPES):
        raise UserError(f'config key {path}: type "{kind}" is not registered. {suggest_type(kind, registry)}')
    return found


def suggest_type(kind: str, registry: Registry) -> str:
    """Suggest what to write for an unknown ``type``: the scope to prefix, the nearest name, the package to install."""
    bare = kind.rpartition('.')[2]
    names: dict[str, list[str]] = {}
    missing = []
    for scope, extra in SCOPES.items():
        if importlib.util.find_spec(scope) is None:
            missing.append(f'{scope} (pip install "vfdistill[{extra}]")')
            continue
        scoped = _scoped(registry, scope)
        scoped.import_from_location()
        for name in scoped.module_dict:
            names.setdefault(name, []).append(scope if scoped.scope == scope else 'mmengine')
    if bare in names:
        return f'Write type="{names[bare][0]}.{bare}".'
    hint = did_you_mean(bare, names).strip(' ()?')
    if hint:
        near = hint.split('"')[1]
        return f'Did you mean "{names[near][0]}.{near}"?'
    if missing:
        return f'It may belong to a package that is not installed: {", ".join(missing)}.'
    return 'No installed package has a name like it; a class of your own needs custom_imports=dict(imports=[...]).'


def _scoped(registry: Registry, scope: str) -> Registry:
    """Return the child registry of a scope; the root itself where the package has no registry of that kind."""
    if scope in SCOPES:
        importlib.import_module(f'{scope}.registry')
    return registry.children.get(scope, registry)


def _need_package(scope: str) -> None:
    if scope in SCOPES and importlib.util.find_spec(scope) is None:
        raise MissingPackageError(
            f'this config uses types of {scope}, which is not installed: pip install "vfdistill[{SCOPES[scope]}]"'
        )


def _name(target: Callable[..., Any] | None) -> str:
    return getattr(target, '__name__', str(target))
