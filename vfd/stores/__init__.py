"""Append-only sharded records on disk: plan, write, resume, checksum, merge, verify, memory-mapped read."""

from vfd.stores.atomic import atomic_path, atomic_write
from vfd.stores.fingerprint import fingerprint_files
from vfd.stores.layout import UnfinishedStoreError
from vfd.stores.maintenance import merge, verify
from vfd.stores.progress import Plan, Progress
from vfd.stores.store import Store
from vfd.stores.writer import StoreWriter

__all__ = [
    'Plan',
    'Progress',
    'Store',
    'StoreWriter',
    'UnfinishedStoreError',
    'atomic_path',
    'atomic_write',
    'fingerprint_files',
    'merge',
    'verify',
]
