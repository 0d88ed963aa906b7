"""Arguments of ``vfd quickstart``: the main example, or another one by name."""

from __future__ import annotations

import argparse
import os


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the examples."""
    _data(parser, os.environ.get('DATA', 'fashion-mnist'), '; default: $DATA, else fashion-mnist')
    parser.add_argument(
        '--seeds',
        default=os.environ.get('SEEDS', '1'),
        help='number of runs, with several: mean and spread; default: $SEEDS, else 1',
    )
    parser.set_defaults(example=_main)
    others = parser.add_subparsers(metavar='[EXAMPLE]', title='other examples')
    for name, (options, run, text) in EXAMPLES.items():
        other = others.add_parser(name, help=text, description=text)
        options(other)
        other.set_defaults(example=run)


def _data(parser: argparse.ArgumentParser, default: str = 'fashion-mnist', note: str = '') -> None:
    parser.add_argument('--data', default=default, help=f'fashion-mnist or cifar10{note}')


def _seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--seeds', type=int, default=1, help='number of runs')


def _vit_arguments(parser: argparse.ArgumentParser) -> None:
    _data(parser)
    _seeds(parser)
    parser.add_argument(
        '--teacher',
        metavar='FILE',
        help='weights for vit_small_patch14_dinov2 of timm, or mae: train one on the images',
    )


def _register_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--photos', metavar='FOLDER', help='train on these; default: those of scikit-image')
    parser.add_argument('--teacher', metavar='FILE', help='weights for vit_small_patch14_dinov2 of timm')


def _main(args: argparse.Namespace) -> None:
    from quickstart.run import quickstart

    quickstart(args.data, args.seeds)


def _vit(args: argparse.Namespace) -> None:
    from quickstart.vit import vit_quickstart

    vit_quickstart(args.data, args.seeds, teacher=args.teacher)


def _ferkd(args: argparse.Namespace) -> None:
    from quickstart.ferkd import ferkd_quickstart

    ferkd_quickstart(args.seeds)


def _registers(args: argparse.Namespace) -> None:
    from quickstart.registers import register_quickstart

    register_quickstart(args.photos, args.teacher)


EXAMPLES = {
    'vit': (
        _vit_arguments,
        _vit,
        'pre-train a small transformer under a real one, fine-tune it and a baseline, print both accuracies',
    ),
    'ferkd': (
        _seeds,
        _ferkd,
        'label crops with a real teacher, calibrate, train a small student and baselines, print a table',
    ),
    'registers': (
        _register_arguments,
        _registers,
        'train registers for a real transformer, print how consistent its features are before and after',
    ),
}
