"""Configuration, normalisation, weights and inputs of the image tower of a transformers model."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vfd.checkpoints import StateFile
from vfd.errors import UserError
from vfd.teachers.normalization import Normalization

from .source import not_fetched


class Settings(NamedTuple):
    """How a network is built.

    Attributes:
        name: for messages.
        config: transformers' configuration.
        classifies: with a classifier.
        prefix: what stands before the names of its tensors in a file of the whole model.
        trust: allow code and pickles that come with the model.
    """

    name: str
    config: Any
    classifies: bool
    prefix: str
    trust: bool


def read_config(name: str, origin: str | None, config: dict | None, trust: bool) -> Any:
    """Read the configuration of a folder or of the hub, or make one from a dict with ``model_type``.

    Raises:
        UserError: there is none, it cannot be fetched, or it is of code that comes with the model.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        if config is None:
            assert origin is not None, 'a folder or a name of the hub'
            return AutoConfig.from_pretrained(origin, trust_remote_code=trust)
        rest = copy.deepcopy(config)
        return AutoConfig.for_model(rest.pop('model_type'), **rest)
    except KeyError:
        raise UserError(f'{name}: config needs a model_type, for example "dinov2"') from None
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise _refusal(name, error) from error


def read_processor(origin: str | None, trust: bool) -> Any:
    """Read the image processor of a model; None where there is none."""
    from transformers import AutoImageProcessor

    if origin is None:
        return None
    try:
        return AutoImageProcessor.from_pretrained(origin, trust_remote_code=trust)
    except (OSError, ValueError):
        return None


def normalization(
    name: str, processor: Any, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalization:
    """Return the normalisation that the user gave, or else the image processor's.

    Raises:
        UserError: neither exists, or the user's is of pixels in 0..1.
    """
    if mean is not None and std is not None:
        if max(std) <= 1:
            raise UserError(
                f'{name}: mean and std are of pixels in 0..255; std={list(std)} looks like 0..1, multiply both by 255'
            )
        return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    if getattr(processor, 'image_mean', None) is None:
        raise UserError(
            f'{name}: no preprocessor_config.json says how its images are normalised; give mean=[...] and std=[...] '
            '(RGB, 0..255)'
        )
    unit = 255 * (processor.rescale_factor if processor.do_rescale else 1)
    means, stds = (
        (processor.image_mean, processor.image_std) if processor.do_normalize else ([0] * 3, [1] * 3)
    )
    return Normalization.from_unit([m / unit for m in means], [s / unit for s in stds])


def image_tower(config: Any) -> tuple[Any, str]:
    """Return the configuration of the image tower, and the prefix of its tensors where it is a backbone."""
    if getattr(config, 'vision_config', None) is not None:
        return config.vision_config, ''  # transformers handles these prefixes itself
    if getattr(config, 'backbone_config', None) is not None:
        return config.backbone_config, 'backbone.'
    return config, ''


def has_classifier(config: Any) -> bool:
    """Return whether the weights of a configuration are those of an image classifier."""
    return any(name.endswith('ForImageClassification') for name in config.architectures or ())


def can_classify(config: Any) -> bool:
    """Return whether transformers has a network of this configuration with a classifier."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def count_parts(config: Any) -> tuple[int, list[int]]:
    """Return (blocks, []) of a plain transformer, (0, channels of every stage) of a network with stages."""
    depths = getattr(config, 'depths', None)
    if depths is None:
        return getattr(config, 'num_hidden_layers', 0), []
    widths = getattr(config, 'hidden_sizes', None)
    if widths is None and isinstance(getattr(config, 'embed_dim', None), int):
        widths = [config.embed_dim * 2**k for k in range(len(depths))]
    return 0, list(widths) if widths and len(widths) == len(depths) else []


def image_size(processor: Any, config: Any) -> tuple[int, int] | None:
    """Return (height, width) of the images that a network was trained on, from its processor or configuration."""
    for size in (getattr(processor, 'crop_size', None), getattr(processor, 'size', None)):
        if size and getattr(processor, 'do_resize', True) and 'height' in size and size['height']:
            return size['height'], size['width']
    size = getattr(config, 'image_size', None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def build(settings: Settings) -> Any:
    """Build the network with fresh weights."""
    try:
        return _auto(settings).from_config(settings.config, trust_remote_code=settings.trust).float()
    except ValueError as error:
        raise _refusal(settings.name, error) from error


def load_published(
    settings: Settings, origin: str | None, needs: Callable[[str], bool]
) -> tuple[Any, list[str]]:
    """Build the network with the weights of a folder or of the hub, see :func:`load_file`."""
    options = {'trust_remote_code': settings.trust, 'use_safetensors': None if settings.trust else True}
    source = f'the published weights of {settings.name}'
    return _load(settings, _auto(settings), source, origin, needs, options)


def load_file(
    settings: Settings, network: type, file: StateFile, needs: Callable[[str], bool]
) -> tuple[Any, list[str]]:
    """Build the network with the weights of a file.

    Args:
        settings: how it is built.
        network: its class.
        file: the weights, under any of the names that transformers had for them.
        needs: whether the tensor of a name is required.

    Returns:
        The network, and the names of the weights that it has no place for.

    Raises:
        UserError: a needed tensor is missing or has another shape.
    """
    return _load(settings, network, str(file.path), None, needs, {'state_dict': dict(file.state)})


def hidden_state_options(network: Any) -> dict[str, bool]:
    """Return the options for the output of hidden states: of Swin those before the patches are merged."""
    options = {'output_hidden_states': True}
    encoder = getattr(network.base_model, 'encoder', None)
    before = 'output_hidden_states_before_downsampling'
    if encoder is not None and before in inspect.signature(encoder.forward).parameters:
        options[before] = True
    return options


def inputs(config: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the network's input: images, or for SigLIP 2 with flexible sizes their patches, (B, N, p * p * 3)."""
    if config.model_type != 'siglip2_vision_model':
        return {'pixel_values': images}
    height, width = grid(config, images)
    side = config.patch_size
    patches = images[..., : height * side, : width * side].unfold(2, side, side).unfold(3, side, side)
    patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.tensor([[height, width]], device=images.device).expand(len(images), -1)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=images.device)
    return {'pixel_values': patches, 'pixel_attention_mask': mask, 'spatial_shapes': shapes}


def grid(config: Any, images: Tensor) -> tuple[int, int]:
    """Return rows and columns of patches of these images."""
    side = config.patch_size
    rows, columns = (side, side) if isinstance(side, int) else side
    return images.shape[-2] // rows, images.shape[-1] // columns


def _load(
    settings: Settings,
    network: Any,
    source: str,
    origin: str | None,
    needs: Callable[[str], bool],
    options: dict,
) -> tuple[Any, list[str]]:
    if settings.prefix:
        options['key_mapping'] = {'^' + re.escape(settings.prefix): ''}
    try:
        with _quiet():
            loaded, info = network.from_pretrained(
                origin,
                config=copy.deepcopy(settings.config),
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError) as error:
        if 'safetensors' in str(error):
            raise UserError(
                f'{settings.name} has no model.safetensors. Convert its weights, or set trust=True in the source to '
                'unpickle them, if you trust their authors.'
            ) from error
        if 'mismatched' in str(error):
            raise UserError(f'{source} has tensors of another shape than {settings.name}: {error}') from error
        raise _refusal(settings.name, error) from error
    if missing := sorted(name for name in info['missing_keys'] if needs(name)):
        raise UserError(
            f'Missing in {source}: {len(missing)} tensors that {settings.name} needs, for example '
            f'{", ".join(missing[:3])}'
        )
    return loaded.eval(), sorted(info['unexpected_keys'])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' table of missing tensors and its progress bar: missing tensors raise an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _auto(settings: Settings) -> Any:
    from transformers import AutoModel, AutoModelForImageClassification

    return AutoModelForImageClassification if settings.classifies else AutoModel


def _refusal(name: str, error: Exception) -> UserError:
    """Return the error for what transformers could not read or build."""
    if 'trust_remote_code' in str(error):
        return UserError(
            f'{name} comes with Python code of its own. Set trust=True in the source to run it, if you trust its '
            'authors.'
        )
    if isinstance(error, OSError):
        return not_fetched(name, error)
    return UserError(f'{name}: transformers says: {" ".join(str(error).split())[:300]}')
