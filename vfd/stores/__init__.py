"""Append-only sharded records on disk: plan, write, resume, checksum, merge, verify, memory-mapped read."""

from vfd.stores.atomic import atomic_path, atomic_write
from vfd.stores.fingerprint import fingerprint_files
from vfd.stores.label_checks import verify_labels
from vfd.stores.label_store import LabelForm, LabelledImage, LabelStore, LabelStoreWriter, StoredCrops
from vfd.stores.layout import UnfinishedStoreError
from vfd.stores.maintenance import merge, verify
from vfd.stores.progress import Plan, Progress
from vfd.stores.ragged import Ragged, RaggedField
from vfd.stores.store import Store
from vfd.stores.writer import StoreWriter

__all__ = [
    'LabelForm',
    'LabelStore',
    'LabelStoreWriter',
    'LabelledImage',
    'Plan',
    'Progress',
    'Ragged',
    'RaggedField',
    'Store',
    'StoreWriter',
    'StoredCrops',
    'UnfinishedStoreError',
    'atomic_path',
    'atomic_write',
    'fingerprint_files',
    'merge',
    'verify',
    'verify_labels',
]
