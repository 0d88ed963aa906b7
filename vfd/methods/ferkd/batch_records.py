"""Records of whole mixed batches (the ``batch_config`` layout of SRe2L): labels that the teacher gave the mixed image.

A file ``epoch_0/batch_0.tar`` (of ``torch.save``) holds ``[coords, flips, mix_index, mix_lambda, mix_bbox, logits]``:
boxes as fractions (B, 4), flips (B,), the partner of every row (B,), the share of the row itself, the pasted box
(h0, w0, h1, w1; empty for mixup) and the teacher's logits (B, C). What is absent is -1 in the store, NaN for the share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vfd.checkpoints.readers import read_torch
from vfd.errors import MissingFileError, UserError
from vfd.offline.step import Step
from vfd.registry import FUNCTIONS
from vfd.stores import Store, StoreWriter, fingerprint_files
from vfd.stores.fingerprint import claim_folder

from .mixing import Mix
from .official import write_torch

KIND = 'batches'


@FUNCTIONS.register_module()
def batches_to_store(files: str | Path, out: str | Path) -> int:
    """Make a store of batch records; a smaller last batch keeps its size.

    Args:
        files: folder of the ``.tar`` files.
        out: folder of the store (:class:`vfd.stores.Store`). Interrupted, the conversion goes on.

    Returns:
        Number of batches.

    Raises:
        MissingFileError: there is no file.
        UserError: a file of another form, or the disk is full.
    """
    paths = sorted(Path(files).rglob('*.tar'))
    if not paths:
        raise MissingFileError(f'{files} has no batch record (*.tar)')
    names = [path.relative_to(files).as_posix() for path in paths]
    shapes = [read_batch(path)['logits'].shape for path in paths]
    rows, classes = max(shape[0] for shape in shapes), shapes[0][1]
    for path, shape in zip(paths, shapes, strict=True):
        if shape[1] != classes:
            raise UserError(f'{path}: logits of {shape[1]} classes, {paths[0]} has {classes}')
    fields = {
        'rows': ('int32', ()),
        'coords': ('float32', (rows, 4)),
        'flips': ('uint8', (rows,)),
        'mix_index': ('int32', (rows,)),
        'mix_lambda': ('float64', ()),
        'mix_bbox': ('int32', (4,)),
        'logits': ('float32', (rows, classes)),
    }
    origin = {'kind': KIND, 'converted': fingerprint_files(names, files)}
    with StoreWriter(out, fields, origin, block_rows=8) as writer:
        todo = [(name, path) for name, path in zip(names, paths, strict=True) if name not in writer.done]
        with Step('converting').run(len(paths), len(writer.done), writer.meta.dtype.itemsize) as progress:
            for name, path in todo:
                record = read_batch(path)
                lacking = rows - len(record['logits'])
                padded = {
                    key: np.pad(value, [(0, lacking), *[(0, 0)] * (value.ndim - 1)])
                    for key, value in record.items()
                    if key in ('coords', 'flips', 'mix_index', 'logits')
                }
                arrays = {**record, **padded, 'rows': np.array(rows - lacking)}
                writer.append([name], **{key: value[None] for key, value in arrays.items()})
                progress.advance(1)
    return len(paths)


@FUNCTIONS.register_module()
def store_to_batches(folder: str | Path, out: str | Path) -> int:
    """Write the files that a store of batch records was made of; those that exist are not written again.

    Raises:
        UserError: the store holds something else, ``out`` has files of another store, or the disk is full.
    """
    store = Store(folder)
    if store.fingerprint.get('kind') != KIND:
        raise UserError(f'{folder} is a store of {list(store.fields)} and not of batch records')
    claim_folder(Path(out), store.inputs, '.tar')
    for name in store.keys:
        path = Path(out, name)
        if not path.exists():
            write_torch(path, batch_content(store[name]))
    return len(store)


def batch_content(record: dict[str, np.ndarray]) -> list[Any]:
    """Return the released list of a record."""
    rows = int(record['rows'])
    index, box = record['mix_index'][:rows], record['mix_bbox']
    share = float(record['mix_lambda'])
    return [
        torch.from_numpy(record['coords'][:rows].copy()),
        torch.from_numpy(record['flips'][:rows].astype(bool)),
        None if (index < 0).any() else torch.from_numpy(index.astype(np.int64)),
        None if np.isnan(share) else share,
        [] if (box < 0).any() else box.tolist(),
        torch.from_numpy(record['logits'][:rows].copy()),
    ]


def replayed_mix(record: dict[str, np.ndarray]) -> Mix | None:
    """Return how a record's batch was mixed; None when it was not.

    Args:
        record: of the store.

    Returns:
        The mix of the rows that the batch has. Labels are those that the teacher gave the mixed images: only images
        are to be mixed with it.
    """
    rows = int(record['rows'])
    partner = torch.from_numpy(record['mix_index'][:rows].astype(np.int64))
    if bool((partner < 0).any()):
        return None
    share = torch.full((rows,), float(record['mix_lambda']), dtype=torch.float64)
    box = torch.from_numpy(record['mix_bbox'].astype(np.int64))
    return Mix(partner, share, None if bool((box < 0).any()) else box.repeat(rows, 1))


def read_batch(path: Path) -> dict[str, np.ndarray]:
    """Read one file; only numpy arrays, tensors and plain values are admitted in it.

    Raises:
        UserError: it holds code, is damaged, or does not hold the six entries.
    """
    content = read_torch(path)
    if not isinstance(content, (list, tuple)) or len(content) != 6:
        raise UserError(f'{path}: expected the list [coords, flips, mix_index, mix_lambda, mix_bbox, logits]')
    coords, flips, index, share, box, logits = (
        np.asarray(part.detach().cpu() if isinstance(part, torch.Tensor) else part, dtype=np.float64)
        if part is not None
        else np.empty(0)
        for part in content
    )
    rows = len(logits)
    if logits.ndim != 2 or coords.shape != (rows, 4) or flips.shape != (rows,):
        raise UserError(
            f'{path}: coords {coords.shape}, flips {flips.shape} and logits {logits.shape} do not fit together; '
            'expected (B, 4), (B,) and (B, C)'
        )
    if index.size not in (0, rows) or box.size not in (0, 4) or share.size > 1:
        raise UserError(f'{path}: mix_index {index.shape}, mix_lambda {share.shape}, mix_bbox {box.shape}')
    if index.size and ((index < 0) | (index >= rows)).any():
        raise UserError(f'{path}: mix_index {index.tolist()} leaves the batch of {rows} rows')
    return {
        'coords': coords,
        'flips': flips,
        'mix_index': index if index.size else np.full(rows, -1),
        'mix_lambda': share.reshape(()) if share.size else np.array(np.nan),
        'mix_bbox': box if box.size else np.full(4, -1),
        'logits': logits,
    }
