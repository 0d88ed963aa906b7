#!/usr/bin/env python
"""Convert label stores: ``convert_store.py from-official FILES --images IMAGES --classes 1000 --out STORE``.

``from-official`` and ``to-official`` are FKD's files, one an image; ``from-batches`` and ``to-batches`` records of
whole mixed batches. Files are read without running code in them.
"""

import argparse
import sys

from vfd.cli.main import guarded


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Convert label stores from and to released layouts.')
    what = parser.add_subparsers(dest='what', required=True, metavar='WHAT')
    for name, source, text in (
        ('from-official', 'folder of the .tar files', "FKD's files, one an image, to a label store"),
        ('to-official', 'folder of the store', "a label store to FKD's files"),
        ('from-batches', 'folder of the .tar files', 'files of mixed batches to a store'),
        ('to-batches', 'folder of the store', 'a store of mixed batches to files'),
    ):
        command = what.add_parser(name, help=text, description=text)
        command.add_argument('source', help=source)
        command.add_argument('--out', required=True, help='folder to write')
        if name == 'from-official':
            command.add_argument('--images', required=True, help='folder of the images')
            command.add_argument('--classes', required=True, type=int, help='number of classes')
            command.add_argument('--label-type', help='default: what the shape of the labels says')
            command.add_argument('--values', choices=['float32', 'float16'], default='float32')
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    from vfd.offline.convert import convert

    options = {name: value for name, value in vars(args).items() if name not in ('what', 'source', 'out')}
    print(convert(args.what, args.source, args.out, **options))


if __name__ == '__main__':
    parsed = arguments()
    sys.exit(guarded(lambda: run(parsed)))
