"""``vfd verify STORE [--images IMAGES]``: check every record of a store, whichever step wrote it."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.add_argument('store', help='folder of the store')
    parser.add_argument('--images', help='folder of the images that were labelled, to compare them too')


def run(args: argparse.Namespace) -> None:
    """Check."""
    from vfd.offline.step import report_faults
    from vfd.offline.verify import verify_store

    images = ' and their images' if args.images else ''
    report_faults(verify_store(args.store, args.images), f'all records agree with their checksums{images}')
