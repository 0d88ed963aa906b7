"""The command line: ``vfd COMMAND ...``. Nothing is imported before its command runs, so ``vfd --help`` is fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import vfd
from vfd.apis.threads import spin_briefly
from vfd.compat.packages import missing_package
from vfd.errors import UserError

# Command -> module with ``arguments(parser)`` and ``run(args)``, and the help text.
COMMANDS: dict[str, tuple[str, str]] = {
    'train': ('vfd.cli.train', 'train a student, or its supervised baseline'),
    'test': ('vfd.cli.test', 'evaluate a checkpoint'),
    'export': ('vfd.cli.export', 'write a student in another form, and certify it'),
    'fit-teacher': (
        'vfd.cli.fit_teacher',
        'fit a classifier on the frozen features of a network, and measure it',
    ),
    'label': ('vfd.cli.label', 'store soft labels of many random crops of every image'),
    'calibrate': ('vfd.cli.calibrate', 'keep, soften or drop the stored labels of every crop'),
    'mine': ('vfd.cli.mine', 'score a pool of images with a teacher and keep the best of every class'),
    'search': ('vfd.cli.search', 'rank student architectures for a teacher without training them'),
    'verify': ('vfd.cli.verify', 'compare every record of a store with its checksum'),
    'convert': ('vfd.cli.convert', 'convert label stores from and to released layouts'),
    'doctor': ('vfd.cli.doctor', 'check the environment and a config, and list what to mend'),
    'quickstart': ('vfd.cli.quickstart', 'distil a real teacher into a small student, on real images'),
    'list': ('vfd.cli.list', 'list methods, teachers, students or configs'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: command and arguments; default ``sys.argv[1:]``.

    Returns:
        Exit code: 0, 1 where ``doctor`` found something to mend, 2 for a mistake of the user (its text is printed,
        without a traceback), 130 for Ctrl-C.
    """
    spin_briefly()  # some arguments of commands import torch
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog='vfd', description='Distil vision foundation models into small backbones.'
    )
    parser.add_argument('--version', action='version', version=f'vfd {vfd.__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            import_module(module).arguments(command)
            command.set_defaults(run=import_module(module).run)
    args = parser.parse_args(argv)
    return guarded(lambda: args.run(args))


def alias(command: str, name: str) -> None:
    """Run a command where a script of ``tools/`` is the main program; ``name`` is the script's ``__name__``."""
    if name == '__main__':
        sys.exit(main([*command.split(), *sys.argv[1:]]))


def guarded(work: Callable[[], int | None]) -> int:
    """Run ``work`` and turn a user's mistake, or a package that is not installed, into one message and an exit code."""
    spin_briefly()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # custom_imports of a config are found beside where it is run
    try:
        return work() or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
    except ModuleNotFoundError as error:
        missing = missing_package((error.name or '').partition('.')[0])
        if missing is None:
            raise
        print(f'error: {missing}', file=sys.stderr)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 2


if __name__ == '__main__':
    sys.exit(main())
