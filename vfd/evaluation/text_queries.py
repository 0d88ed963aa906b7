"""Class names as text features: files of names, and the text tower of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfd.checkpoints import load_into, load_state
from vfd.compat import require
from vfd.errors import MissingFileError, UserError, did_you_mean


def read_class_names(source: str | Path | Sequence[str]) -> list[list[str]]:
    """Read the names of every class.

    Args:
        source: a text file (UTF-8), one class a line in the order of the labels, or the lines themselves. Several
            names of one class are separated by ``', '``.

    Returns:
        A list of names a class.

    Raises:
        MissingFileError: the file is not there.
        UserError: fewer than two classes, a line or a name that is empty (a blank line would shift the labels of all
            lines below it), or a name that stands twice. The line is named.
    """
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise MissingFileError(f'the file of class names {source} is not there')
        place = str(source)
        try:
            lines = Path(source).read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f'{source} is no UTF-8 text: {error}') from error
        while lines and not lines[-1].strip():
            lines.pop()
    else:
        place, lines = 'class names', list(source)
    if len(lines) < 2:
        raise UserError(f'{place}: at least two classes are needed, one a line; found {len(lines)}')
    classes: list[list[str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        names = [name.strip() for name in line.split(',')]
        if not all(names):
            raise UserError(
                f'{place}, line {number}: expected a name, or several separated by ", ", found "{line}". Every line is '
                'a class: remove blank lines'
            )
        for name in names:
            if name in seen:
                raise UserError(f'{place}, line {number}: "{name}" stands in line {seen[name]} already')
            seen[name] = number
        classes.append(names)
    return classes


def check_text_tower(model_name: str, weights: str | None) -> None:
    """Refuse a text tower that cannot be built, before any time is spent.

    Args:
        model_name: open_clip's name, or ``local-dir:FOLDER`` with an ``open_clip_config.json``.
        weights: open_clip's tag of published weights, a weight file, or ``'random'``.

    Raises:
        MissingPackageError: open_clip is not installed.
        UserError: an unknown model or tag, a file that is not there, or no weights at all.
    """
    require('open_clip')
    import open_clip

    if weights is None:
        raise UserError(
            f'text tower {model_name}: name its weights: a tag of open_clip, a weight file, or "random", whose outputs '
            'mean nothing'
        )
    local = model_name.startswith('local-dir:')
    if local and not (Path(model_name.removeprefix('local-dir:')) / 'open_clip_config.json').is_file():
        raise MissingFileError(f'text tower {model_name}: there is no open_clip_config.json in that folder')
    if not local and model_name not in open_clip.list_models():
        hint = did_you_mean(model_name, open_clip.list_models())
        raise UserError(f'text tower: open_clip has no model "{model_name}"{hint}')
    tags = [] if local else open_clip.list_pretrained_tags_by_model(model_name)
    if weights == 'random' or weights in tags or Path(weights).expanduser().is_file():
        return
    known = ', '.join(['random', *tags])
    raise UserError(
        f'text tower {model_name}: "{weights}" is neither a weight file nor one of {known}{did_you_mean(weights, tags)}'
    )


@torch.no_grad()
def text_features(
    names: Sequence[str], model_name: str, weights: str, device: torch.device | str = 'cpu'
) -> Tensor:
    """Encode every name as a unit vector: the mean over the 80 sentences that OpenAI published for ImageNet.

    Every sentence is encoded and brought to length 1, then their mean is.

    Args:
        names: the queries.
        model_name: see `check_text_tower`.
        weights: see `check_text_tower`.
        device: where they are encoded.

    Returns:
        (N, D) float32.

    Raises:
        UserError: the weights cannot be fetched, or the file lacks tensors of the text tower.
    """
    check_text_tower(model_name, weights)
    import open_clip

    model = _tower(model_name, weights)
    tokenizer = open_clip.get_tokenizer(model_name)
    matrix = open_clip.build_zero_shot_classifier(
        model.eval().to(device),
        tokenizer,
        list(names),
        open_clip.OPENAI_IMAGENET_TEMPLATES,
        device=device,
    )  # (D, N)
    return matrix.T.float().contiguous()


def _tower(model_name: str, weights: str) -> Any:
    """Build the CLIP model and load its text side; a file need not have the images' side."""
    import open_clip

    published = weights != 'random' and not Path(weights).expanduser().is_file()
    try:
        model = open_clip.create_model(
            model_name, pretrained=weights if published else None, load_weights=published
        )
    except (OSError, RuntimeError) as error:
        if not published:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'the published weights "{weights}" of {model_name} could not be fetched ({reason}). Check the connection, '
            'or give a weight file'
        ) from error
    if weights != 'random' and not published:
        load_into(model, load_state(weights), needed=_is_text)
    return model


def _is_text(name: str) -> bool:
    """Return whether a tensor of open_clip's models belongs to the text side."""
    return not name.startswith(('visual.', 'logit_scale', 'logit_bias'))
