"""The command line. ``vfd train ...`` and ``tools/train.py ...`` are the same thing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import vfd
from vfd.apis.threads import spin_briefly
from vfd.errors import UserError

# The work lies in functions so that `vfd --help` does not import torch.


def _options(parser: argparse.ArgumentParser) -> None:
    """The options that all OpenMMLab commands share."""
    from mmengine.config import DictAction

    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, for example optim_wrapper.optimizer.lr=0.1',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    parser.add_argument('config', help='config file')
    _options(parser)
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
        help='train the supervised twin instead: the student alone, with labels, for as many steps',
    )
    parser.add_argument('--dry-run', action='store_true', help='build everything, print what was built, stop')


def train(args: argparse.Namespace) -> None:
    """``train``: see :func:`vfd.apis.training.train`."""
    from vfd.apis import baseline, dry_run
    from vfd.apis import training as api

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
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
        cfg = baseline.twin(cfg)
    if args.dry_run:
        dry_run.dry_run(cfg)
    else:
        api.run(cfg)


def test_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``test``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint that training wrote; none where the config names the weights',
    )
    _options(parser)


def test(args: argparse.Namespace) -> None:
    """``test``: see :func:`vfd.apis.training.test`."""
    from vfd.apis import training as api

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    api.test(args.config, args.checkpoint, args.work_dir, args.launcher, args.cfg_options)


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    from vfd.apis import exporting as api

    api.export_arguments(parser)


def export(args: argparse.Namespace) -> None:
    """``export``: see :func:`vfd.apis.exporting.export`."""
    from vfd.apis import exporting as api

    api.run_export(args)


COMMANDS: dict[str, tuple[Callable, Callable, str]] = {
    'train': (train_arguments, train, 'train a student, or its supervised twin'),
    'test': (test_arguments, test, 'evaluate a checkpoint'),
    'export': (export_arguments, export, 'write a student in another form, and certify it'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: command and arguments; default ``sys.argv[1:]``.

    Returns:
        Exit code: 0, 2 for a mistake of the user (its text is printed, without a traceback), 130 for Ctrl-C.
    """
    spin_briefly()  # some arguments of commands import torch
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog='vfd', description='Distil vision foundation models into small backbones.'
    )
    parser.add_argument('--version', action='version', version=f'vfd {vfd.__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (arguments, run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            arguments(command)
        command.set_defaults(run=run)
    args = parser.parse_args(argv)
    return guarded(lambda: args.run(args))


def guarded(work: Callable[[], object]) -> int:
    """Run ``work`` and turn a user's mistake into one message and an exit code."""
    spin_briefly()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # custom_imports of a config are found beside where it is run
    try:
        work()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
