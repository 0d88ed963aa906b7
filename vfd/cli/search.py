"""``vfd search CONFIG``: find a student for a teacher without training, see :mod:`vfd.offline.search`.

Run it again after an interruption and it goes on; with ``--launcher pytorch`` (torchrun) or ``slurm`` (srun) the ranks
share the candidates. The ranking, a picture and the training config of the winner are written into the work folder.
"""

from __future__ import annotations

import argparse

from vfd.cli.options import add_config_options, add_launcher, add_verify

LIMITS = {'params': 'parameters', 'flops': 'multiply-accumulates', 'latency_ms': 'ms of one image'}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``search``."""
    parser.add_argument('config', help='config with model.teacher and search')
    parser.add_argument('--work-dir', help='folder for the results (default: work_dirs/NAME OF THE CONFIG)')
    add_config_options(parser, 'search.seeds=5 search.limits.flops=1e8')
    for name, what in LIMITS.items():
        parser.add_argument(
            f'--max-{name.replace("_", "-")}',
            type=float,
            metavar='N',
            help=f'limit of {what}, such as 5e6: search.limits of the config',
        )
    add_launcher(parser)
    add_verify(parser)


def run(args: argparse.Namespace) -> None:
    """Search, or check what was found."""
    from vfd.offline import search as api
    from vfd.offline.step import report_faults

    given = {f'search.limits.{name}': getattr(args, f'max_{name}') for name in LIMITS}
    options = {
        **(args.cfg_options or {}),
        **{key: limit for key, limit in given.items() if limit is not None},
    }
    if args.verify:
        faults = api.verify_search(args.config, args.work_dir, options)
        report_faults(
            faults, 'ranking and winner follow from the scores, and these agree with their checksums'
        )
    else:
        api.search(args.config, args.work_dir, options, args.launcher)
