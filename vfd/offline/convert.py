"""Convert stores from and to released layouts; the method does the work, found in the registry."""

from __future__ import annotations

from typing import Any

from vfd.registry import FUNCTIONS


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
