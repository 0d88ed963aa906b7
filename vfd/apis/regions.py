"""Calibrate, convert and check stored labels, and look at them; the method does the work, found in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.errors import MissingFileError, UserError
from vfd.registry import FUNCTIONS, MODELS
from vfd.stores import atomic_write, verify, verify_labels
from vfd.stores.label_checks import image_faults
from vfd.stores.label_store import KIND, written_files
from vfd.stores.layout import StoreMeta


def calibrate(
    store: str,
    out: str,
    settings: dict[str, Any],
    images: str | None = None,
    class_names: str | None = None,
) -> Any:
    """Write a calibrated label store; show what became of the crops.

    Args:
        store: folder of the raw store.
        out: folder of the new one; ``categories.png`` goes there, and ``crops.png`` when ``images`` is given.
        settings: ``thresholds`` or ``quantiles``, ``epsilon``, ``confidence``, ``min_keep``.
        images: folder to which the store's names are relative.
        class_names: text file with one name a line.

    Returns:
        The counts.

    Raises:
        UserError: see ``vfd.methods.ferkd.calibration``.
    """
    names = read_names(class_names)
    summary = FUNCTIONS.get('vfd.calibrate_store')(store, out, settings)
    atomic_write(Path(out, 'categories.png'), FUNCTIONS.get('vfd.calibration_histogram')(summary))
    print(summary.table())
    print(Path(out, 'categories.png'))
    if images is not None:
        atomic_write(
            Path(out, 'crops.png'), FUNCTIONS.get('vfd.calibration_sheet')(store, images, summary, names)
        )
        print(Path(out, 'crops.png'))
    return summary


def verify_store(folder: str, images: str | None = None) -> list[str]:
    """Check any store: every record against its checksum; in a label store also that it can be true.

    Args:
        folder: of the store.
        images: folder to which a label store's names are relative: the images are compared too.

    Returns:
        One line a fault.
    """
    if not Path(folder, 'meta.json').exists():
        raise MissingFileError(f'no store at {folder} (it has no meta.json)')
    if StoreMeta.read(Path(folder)).fingerprint.get('kind') != KIND:
        if images is not None:
            raise UserError(f'{folder} is no label store: there are no images to compare with it')
        return verify(folder)
    faults = verify_labels(folder)
    if images is not None:
        faults += image_faults(folder, {name: Path(images, name) for name in written_files(folder)})
    return faults


def convert(what: str, source: str, out: str, **options: Any) -> str:
    """Convert a store from or to a released layout.

    Args:
        what: ``from-official``, ``to-official``, ``from-batches`` or ``to-batches``.
        source: folder to read.
        out: folder to write.
        options: for ``from-official``: ``images``, ``classes``, ``label_type``, ``values``.

    Returns:
        What was done, as text.
    """
    function = {
        'from-official': 'vfd.official_to_store',
        'to-official': 'vfd.store_to_official',
        'from-batches': 'vfd.batches_to_store',
        'to-batches': 'vfd.store_to_batches',
    }[what]
    done = FUNCTIONS.get(function)(source, out=out, **options)
    if what != 'from-official':
        return f'{out}: {done} records'
    return '\n'.join([*done[:20], f'{out}: {len(done)} images left out'])


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
        ground_truth: class of the image; default: what the teacher says of all crops together.
        class_names: text file with one name a line.
        device: default: this process's GPU, or the CPU.

    Returns:
        A PNG, and a line of text a crop.
    """
    model = load_config(config, options).get('model', {})
    if model.get('type') != 'vfd.RegionLabeller':
        raise UserError(f'{config} is no relabelling config: its model is {model.get("type")}')
    names = read_names(class_names)
    labeller = MODELS.build(model).to(choose_device(device))
    return FUNCTIONS.get('vfd.regions_picture')(labeller, image, rule, ground_truth, names)


def read_names(file: str | None) -> Sequence[str]:
    """Class names of a text file, one a line; none without a file."""
    if file is None:
        return ()
    if not Path(file).is_file():
        raise MissingFileError(f'the file of class names {file} is not there')
    return Path(file).read_text(encoding='utf-8').splitlines()
