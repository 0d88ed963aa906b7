"""``vfd test CONFIG CHECKPOINT``: see :func:`vfd.apis.training.test`."""

from __future__ import annotations

import argparse

from vfd.cli.options import add_runner_options, set_local_rank


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``test``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint that training wrote; none where the config names the weights',
    )
    add_runner_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    from vfd.apis import training as api

    set_local_rank(args)
    api.test(args.config, args.checkpoint, args.work_dir, args.launcher, args.cfg_options)
