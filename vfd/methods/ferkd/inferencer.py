"""Label the crops of one image with a config's teacher, and draw them by category."""

from __future__ import annotations

from typing import Any

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.errors import UserError
from vfd.methods.ferkd.gallery import regions_picture
from vfd.methods.ferkd.labeller import RegionLabeller
from vfd.offline.calibrate import read_names
from vfd.registry import MODELS


def show_regions(
    config: str,
    image: str,
    rule: dict[str, Any],
    options: dict[str, Any] | None = None,
    ground_truth: int | None = None,
    class_names: str | None = None,
    device: str | None = None,
) -> tuple[bytes, str]:
    """Label the crops of one image and draw them by category.

    Args:
        config: a relabelling config.
        image: the file.
        rule: ``low``, ``mid``, ``high``, ``epsilon``, ``confidence``, ``min_keep``.
        options: settings that replace those of the config.
        ground_truth: class of the image; default: the teacher's prediction for all crops together.
        class_names: text file with one name a line.
        device: default: this process's GPU, or the CPU.

    Returns:
        A PNG, and a line of text a crop.
    """
    model = load_config(config, options).get('model', {})
    if MODELS.get(str(model.get('type'))) is not RegionLabeller:
        raise UserError(f'{config} is no relabelling config: its model is {model.get("type")}')
    names = read_names(class_names)
    labeller = MODELS.build(model).to(choose_device(device))
    return regions_picture(labeller, image, rule, ground_truth, names)
