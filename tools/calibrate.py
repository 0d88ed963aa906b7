#!/usr/bin/env python
"""FerKD's region calibration of a label store: ``calibrate.py STORE --out NEW --thresholds 0.05 0.3 0.99``.

Prints a table and writes ``categories.png`` into the new store; with ``--images`` also ``crops.png``.
"""

import argparse
import sys

from vfd.cli.main import guarded


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Drop the crops on which the teacher is hopeless or trivially sure, soften the doubtful ones.'
    )
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
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    from vfd.offline.calibrate import calibrate

    names = ('thresholds', 'quantiles', 'epsilon', 'confidence', 'min_keep')
    settings = {name: getattr(args, name) for name in names}
    calibrate(args.store, args.out, settings, args.images, args.class_names)


if __name__ == '__main__':
    parsed = arguments()
    sys.exit(guarded(lambda: run(parsed)))
