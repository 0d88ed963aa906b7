"""``vfd quickstart``: the examples of ``examples/quickstart``, which list their own runs."""

from __future__ import annotations

import argparse
from importlib import import_module

from vfd.apis.places import find_examples


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``quickstart``."""
    find_examples()
    import_module('quickstart.command').arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the example."""
    args.example(args)
