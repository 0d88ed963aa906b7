"""``vfd calibrate STORE --out NEW --thresholds 0.05 0.3 0.99``: see :mod:`vfd.offline.calibrate`.

Prints a table and writes ``categories.png`` into the new store; with ``--images`` also ``crops.png``.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``calibrate``."""
    parser.add_argument('store', help='folder of the raw label store')
    parser.add_argument('--out', required=True, help='folder of the calibrated store')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        '--thresholds',
        nargs=3,
        type=float,
        metavar=('LOW', 'MID', 'HIGH'),
        help='confidences; a start (project default): 0.05 0.30 0.99',
    )
    which.add_argument(
        '--quantiles',
        nargs=3,
        type=float,
        metavar=('LOW', 'MID', 'HIGH'),
        help='parts of all crops instead, for example 0.05 0.25 0.95',
    )
    parser.add_argument(
        '--epsilon', type=float, default=0.1, help='softening of the ground truth (project default 0.1)'
    )
    parser.add_argument(
        '--confidence',
        choices=['max', 'gt'],
        default='max',
        help='largest probability (project default) or that of the ground truth',
    )
    parser.add_argument(
        '--min-keep', type=int, default=4, help='crops that every image keeps (project default 4)'
    )
    parser.add_argument('--images', help='folder of the images, for pictures of example crops')
    parser.add_argument('--class-names', help='text file with one class name a line')


def run(args: argparse.Namespace) -> None:
    """Calibrate."""
    from vfd.offline.calibrate import calibrate

    names = ('thresholds', 'quantiles', 'epsilon', 'confidence', 'min_keep')
    settings = {name: getattr(args, name) for name in names}
    calibrate(args.store, args.out, settings, args.images, args.class_names)
