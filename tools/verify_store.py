#!/usr/bin/env python
"""Check every record of a store, whichever tool wrote it: ``verify_store.py STORE [--images IMAGES]``."""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    from vfd.errors import UserError
    from vfd.offline.verify import verify_store

    faults = verify_store(args.store, args.images)
    if faults:
        raise UserError('\n'.join(['damaged:', *faults]))
    print('all records agree with their checksums' + (' and their images' if args.images else ''))


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Compare every record of a store with its checksum.')
    parser.add_argument('store', help='folder of the store')
    parser.add_argument('--images', help='folder of the images that were labelled, to compare them too')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
