"""``vfd list methods|teachers|students|configs [PATTERN]``: see :mod:`vfd.apis.listing`."""

from __future__ import annotations

import argparse

WHAT = ('methods', 'teachers', 'students', 'configs')


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``list``."""
    parser.add_argument('what', choices=WHAT)
    parser.add_argument('pattern', nargs='?', default='*', help='of the names, such as "vit*"; default: all')


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from vfd.apis import listing

    print(getattr(listing, f'list_{args.what}')(args.pattern))
