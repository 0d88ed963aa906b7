"""Training and testing from a config: what ``vfd train`` and ``vfd test`` call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from huggingface_hub.errors import LocalEntryNotFoundError
from mmengine.config import Config

from vfd.apis.check import suggest_type
from vfd.apis.config import load_config
from vfd.engine import Runner
from vfd.engine.launch import check_amp
from vfd.errors import MissingFileError, UserError, did_you_mean


def train(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
    options: dict[str, Any] | None = None,
    validate: bool = True,
) -> Runner:
    """Train what a config describes.

    Args:
        config: path of a config, or a loaded one.
        work_dir: where logs and checkpoints go; default ``work_dirs/<name of the config>``.
        resume: True continues from the newest complete checkpoint in ``work_dir`` (from the start when there is
            none), a path from that checkpoint.
        amp: mixed precision, with dynamic loss scaling.
        auto_scale_lr: scale the learning rates by the total batch over ``auto_scale_lr.base_batch_size``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        options: merged over the config, as ``--cfg-options``.
        validate: False leaves the validation out.

    Returns:
        The runner, after training; ``runner.model`` is the trained model.

    Raises:
        UserError: the config, the data or a checkpoint is wrong; the text names the remedy.
    """
    return run(prepare(config, work_dir, options, launcher, resume, amp, auto_scale_lr, validate))


def test(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
    options: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of a config.

    Args:
        config: path of a config, or a loaded one.
        checkpoint: what training wrote; None for a model whose config names its weights (``pretrained=True`` or
            ``checkpoint=FILE``).
        work_dir: where logs go.
        launcher: see :func:`train`.
        options: merged over the config.

    Returns:
        The metrics by name, in the units of the config's evaluator.
    """
    cfg = prepare(config, work_dir, options, launcher)
    if checkpoint is None and not _names_weights(cfg.get('model')):
        raise UserError(
            'which weights? Give a checkpoint, or name them in the model: pretrained=True or checkpoint=FILE'
        )
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise MissingFileError(f'checkpoint {checkpoint} does not exist')
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        if cfg.get(key) is None:
            raise UserError(f'the config has no {key}: there is nothing to test on')
    cfg.load_from, cfg.resume = None if checkpoint is None else str(checkpoint), False
    with clear_errors(cfg):
        runner = Runner.from_cfg(cfg)
        if checkpoint is None:
            runner._init_model_weights()  # where a network reads the file that its config names
        return runner.test()


def prepare(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    validate: bool = True,
) -> Config:
    """Return a checked config with all arguments of :func:`train` set in it; a loaded config is copied first."""
    if isinstance(config, Config):
        cfg = Config(config._cfg_dict.to_dict(), filename=config.filename)
        cfg.merge_from_dict(options or {})
    else:
        cfg = load_config(config, options)
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename or 'run').stem)
    cfg.launcher = launcher
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise UserError(
                '--auto-scale-lr: the config does not set for which total batch its learning rate is; '
                'add auto_scale_lr=dict(base_batch_size=...)'
            )
        cfg.auto_scale_lr.enable = True
    if isinstance(resume, str):
        if not Path(resume).is_file():
            raise MissingFileError(f'--resume {resume}: no such checkpoint')
        cfg.load_from = resume
    if resume:
        cfg.resume = True
    return cfg


def run(cfg: Config) -> Runner:
    """Train a prepared config."""
    if cfg.get('train_dataloader') is None:
        raise UserError(
            'the config has no train_dataloader: there is nothing to train. Evaluate it with `vfd test`'
        )
    check_amp(cfg.optim_wrapper)
    with clear_errors(cfg):
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


def _names_weights(model: Any) -> bool:
    """Return whether a model's config names its own weights, not those of a teacher."""
    if isinstance(model, Mapping):
        if model.get('pretrained') is True or model.get('checkpoint') not in (None, 'random'):
            return True
        return any(_names_weights(value) for key, value in model.items() if key != 'teacher')
    return False


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper; this config has optim_wrapper.type="{kind}"')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


@contextmanager
def clear_errors(cfg: Config) -> Iterator[None]:
    """Turn the libraries' errors about a mistake in the config into one clear message.

    What cannot be traced to the config stays as it is, with its traceback.
    """
    try:
        yield
    except KeyError as error:
        found = re.search(r'(\S+) is not in the \S+::(.+?) registry', str(error))
        if not found:
            raise
        raise UserError(_unknown_type(found[1], found[2])) from error
    except TypeError as error:
        found = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
        if not found or found[1] not in set(_keys(cfg._cfg_dict)):
            raise
        raise UserError(
            f'the config gives "{found[1]}" to something that does not take it: {error}'
        ) from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f'published weights could not be fetched ({error}). Check the connection, or set pretrained=False in the '
            'config'
        ) from error
    except FileNotFoundError as error:
        if isinstance(error, UserError) or error.filename is None:
            raise
        raise MissingFileError(f'{error.filename} does not exist: correct the path in the config') from error
    except RuntimeError as error:
        found = re.search(r'Unknown model \((.+)\)', str(error))
        if not found:
            raise
        raise UserError(
            f'timm has no model "{found[1]}"{did_you_mean(found[1], timm.list_models())}'
        ) from error


def _keys(node: Any) -> Iterator[str]:
    """Yield every key of a config, at any level."""
    if isinstance(node, Mapping):
        yield from node
        node = node.values()
    if isinstance(node, Iterable) and not isinstance(node, str):
        for part in node:
            yield from _keys(part)


def _unknown_type(kind: str, registry_name: str) -> str:
    from mmengine import registry as roots

    root = next((r for r in vars(roots).values() if getattr(r, 'name', None) == registry_name), roots.MODELS)
    return f'type "{kind}" is not registered. {suggest_type(kind, root)}'
