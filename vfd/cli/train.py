"""``vfd train CONFIG``: see :func:`vfd.apis.training.train`."""

from __future__ import annotations

import argparse

from vfd.cli.options import add_runner_options, set_local_rank


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    parser.add_argument('config', help='config file')
    add_runner_options(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        metavar='CHECKPOINT',
        help='continue exactly where training stopped: from CHECKPOINT, or the newest one in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale learning rates by the total batch'
    )
    parser.add_argument('--no-validate', action='store_true', help='leave the validation out')
    parser.add_argument(
        '--baseline',
        action='store_true',
        help='train the supervised baseline instead: the student alone, with labels, for as many steps',
    )
    parser.add_argument('--dry-run', action='store_true', help='build everything, print what was built, stop')


def run(args: argparse.Namespace) -> None:
    """Train, or only build with ``--dry-run``."""
    from vfd.apis import baseline, dry_run
    from vfd.apis import training as api

    set_local_rank(args)
    cfg = api.prepare(
        args.config,
        args.work_dir,
        args.cfg_options,
        args.launcher,
        resume=args.resume,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        validate=not args.no_validate,
    )
    if args.baseline:
        cfg = baseline.baseline_config(cfg)
    if args.dry_run:
        dry_run.dry_run(cfg)
    else:
        api.run(cfg)
