"""``vfd convert from-official FILES --images IMAGES --classes 1000 --out STORE``: see :mod:`vfd.offline.convert`.

``from-official`` and ``to-official`` are files of one image each; ``from-batches`` and ``to-batches`` records of whole
mixed batches. Files are read without running code in them.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
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
            command.add_argument('--label-type', help='default: according to the shape of the labels')
            command.add_argument('--values', choices=['float32', 'float16'], default='float32')


def run(args: argparse.Namespace) -> None:
    """Convert."""
    from vfd.offline.convert import convert

    known = ('images', 'classes', 'label_type', 'values')
    options = {name: value for name, value in vars(args).items() if name in known}
    print(convert(args.what, args.source, args.out, **options))
