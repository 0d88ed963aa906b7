"""Artifacts of dense features before and after registers: what ``tools/artifact_metrics.py`` calls."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.checkpoints import load_into, load_state
from vfd.datasets import list_images
from vfd.errors import BadDataError, UserError
from vfd.evaluation import cosines, token_norms, worst_cosines
from vfd.methods.ph_reg.artifact_pictures import TokenMaps, draw_artifacts
from vfd.methods.ph_reg.denoise import DenoisedTeacher
from vfd.registry import MODELS, TRANSFORMS
from vfd.stores import Progress, atomic_write
from vfd.visualization.theme import LIGHT

SHOWN = 4  # images in the picture


@dataclass(frozen=True)
class Analysed:
    """Dense features of one network on all images.

    Attributes:
        norms: (images, h, w) lengths of the patch tokens.
        robust_z: (images, h, w), see :class:`vfd.evaluation.TokenNorms`.
        cosine: (images, h, w) with the target.
    """

    norms: Tensor
    robust_z: Tensor
    cosine: Tensor

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the report; counts are means over images."""
        statistics = token_norms(
            self.norms.flatten(1)[..., None]
        )  # a vector of one channel is its own length
        return {
            'norm_mean': float(statistics.mean.mean()),
            'norm_std': float(statistics.std.mean()),
            'norm_max_over_median': float(
                (self.norms.amax((1, 2)) / self.norms.flatten(1).median(1).values).mean()
            ),
            'tokens_above_6': float(statistics.high.double().mean()),
            'tokens_below_minus_6': float(statistics.low.double().mean()),
            'cosine_mean': float(self.cosine.mean()),
            **{f'cosine_worst_{p}': value for p, value in worst_cosines(self.cosine).items()},
        }


def analyse_artifacts(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    images: str | Path,
    out: str | Path,
    views: int = 200,
    limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, Any]:
    """Compare a distilled student and its teacher with the mean over many views of every image.

    Args:
        config: of a distillation with :class:`vfd.DenoisedTeacher`.
        checkpoint: what it wrote; None takes the student as the config starts it.
        images: folder; their central squares are looked at, in the size of the training.
        out: folder for ``artifacts.json`` and ``artifacts.png``.
        views: of the target; 200 as in the paper.
        limit: how many images, the first by name; None takes all.
        seed: of the views.
        device: where the networks run; default: the GPU if there is one.

    Returns:
        What ``artifacts.json`` holds: ``teacher`` (as it is, without averaging) and ``student``, each with the
        statistics of token lengths and the cosines with the target.

    Raises:
        UserError: another kind of config, a checkpoint that lacks tensors, no readable image, or features that are not
            finite.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    if views < 2:
        raise UserError(f'views={views}: a target needs at least two views, 200 as in the paper')
    model = _model(cfg, checkpoint).to(choose_device(device))
    names = list_images(str(images))[:limit]
    torch.manual_seed(seed)
    before, after, shown = _look(cfg, model, Path(images), names, views)
    results = {
        'config': str(cfg.filename),
        'checkpoint': None if checkpoint is None else str(checkpoint),
        'images': len(before.norms),
        'skipped': len(names) - len(before.norms),
        'views': views,
        'teacher': before.summary(),
        'student': after.summary(),
    }
    folder = Path(out)
    maps = [TokenMaps(name, part.norms.numpy(), part.cosine.numpy()) for name, part in _pair(before, after)]
    atomic_write(folder / 'artifacts.png', draw_artifacts(shown, maps, LIGHT))
    atomic_write(folder / 'artifacts.json', json.dumps(results, indent=2) + '\n')
    return results


def print_table(results: dict[str, Any]) -> None:
    """Print the numbers of teacher and student side by side."""
    table = Table(
        'measure', 'teacher', 'student',
        title=f'{results["images"]} images, target of {results["views"]} views', title_justify='left',
    )  # fmt: skip
    for name, value in results['teacher'].items():
        table.add_row(name, f'{value:.4f}', f'{results["student"][name]:.4f}')
    Console().print(table)


def _pair(before: Analysed, after: Analysed) -> Iterator[tuple[str, Analysed]]:
    yield 'teacher', before
    yield 'student', after


def _model(cfg: Config, checkpoint: str | Path | None) -> Any:
    settings: Any = copy.deepcopy(cfg.get('model') or {})
    kind = MODELS.get(str((settings.get('teacher') or {}).get('type')))
    if not (inspect.isclass(kind) and issubclass(kind, DenoisedTeacher)):
        raise UserError(
            f'{cfg.filename or "the config"} has no vfd.DenoisedTeacher as model.teacher: give a config of PH-Reg'
        )
    settings.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        model: Any = MODELS.build(settings).eval()
    if checkpoint is not None:
        load_into(model, load_state(checkpoint))
    return model


@torch.no_grad()
def _look(
    cfg: Config, model: Any, folder: Path, names: list[str], views: int
) -> tuple[Analysed, Analysed, list[Tensor]]:
    """Run teacher and student on every image; return also the first images (3, H, W) in 0..255, RGB."""
    pipeline = _pipeline(cfg)
    tap = model.teacher.taps[0]
    model.teacher.num_views = views
    parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[], []]
    shown: list[Tensor] = []
    with Progress('images', len(names)) as progress:
        for name in names:
            progress.advance(1)
            try:
                packed = pipeline({'img_path': str(folder / name)})
            except BadDataError as error:
                progress.console.print(f'skipped: {error}', highlight=False)
                continue
            packed['inputs'] = packed['inputs'][None]
            inputs = model.data_preprocessor({**packed, 'data_samples': None}, False)[
                'inputs'
            ]  # (1, 3, H, W)
            target = model.teacher(inputs)[tap]  # (1, T, D)
            grid = tuple(side // model.student.patch_size for side in inputs.shape[-2:])
            sides = (model.teacher.undenoised(inputs)[tap], model.student.dense(inputs))
            for tokens, part in zip(sides, parts, strict=True):
                if not (tokens.isfinite().all() and target.isfinite().all()):
                    raise UserError(f'{folder / name}: features of teacher or student are not finite')
                norms = token_norms(tokens)
                values = (norms.norms, norms.robust_z, cosines(tokens, target))
                part.append(tuple(value.reshape(grid).cpu() for value in values))  # type: ignore[arg-type]
            if len(shown) < SHOWN:
                shown.append(packed['inputs'][0].flip(0).cpu())
    if not shown:
        raise UserError(f'none of the {len(names)} images of {folder} can be used')
    before, after = (Analysed(*(torch.stack(values) for values in zip(*part, strict=True))) for part in parts)
    return before, after, shown


def _pipeline(cfg: Config) -> Compose:
    """Return the pipeline of the training, with a centre crop in the place of the random crop."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    steps = copy.deepcopy(dataset.get('pipeline') or [])
    if not steps:
        raise UserError('the config has no train_dataloader.dataset.pipeline, which prepares the images')
    for step in steps:
        if str(step['type']).rpartition('.')[2] == 'RandomCrop':
            step['type'] = 'mmpretrain.CenterCrop'
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        return Compose([TRANSFORMS.build(step) for step in steps])
