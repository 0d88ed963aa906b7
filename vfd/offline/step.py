"""Shared parts of offline steps: items are divided among ranks, a plan and progress are printed, results are checked.

That a killed step goes on where it stopped is the work of the writers of :mod:`vfd.stores`: a step opens one and leaves
out what is in ``writer.done``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vfd.errors import UserError
from vfd.stores import Plan, Progress


@dataclass(frozen=True)
class Step:
    """One offline step in one process. Ranks do not communicate, so there is no process group.

    Example:
        >>> step = Step.launched('labelling', 'pytorch')
        >>> images = step.share(all_images)
        >>> with StoreWriter(folder, fields, fingerprint, step.rank, step.world_size) as writer:
        ...     todo = [image for image in images if image not in writer.done]
        ...     with step.run(len(images), len(images) - len(todo), record_bytes) as progress:
        ...         ...

    Attributes:
        title: what is done, for plan and progress.
        rank: of this process.
        world_size: number of processes.
    """

    title: str
    rank: int = 0
    world_size: int = 1

    @classmethod
    def launched(cls, title: str, launcher: str) -> Step:
        """Read rank and world size from the environment of a launcher.

        Args:
            title: see :class:`Step`.
            launcher: ``none``, ``pytorch`` (torchrun) or ``slurm`` (srun).

        Raises:
            UserError: the process was not started by that launcher.
        """
        if launcher == 'none':
            return cls(title)
        rank, world_size = ('SLURM_PROCID', 'SLURM_NTASKS') if launcher == 'slurm' else ('RANK', 'WORLD_SIZE')
        if rank not in os.environ:
            raise UserError(f'--launcher {launcher}: {rank} is not set; start the command with that launcher')
        return cls(title, int(os.environ[rank]), int(os.environ[world_size]))

    def owns(self, name: str) -> bool:
        """Return whether this rank processes an item."""
        return shard_of(name, self.world_size) == self.rank

    def share(self, names: Iterable[str]) -> list[str]:
        """Return the items of this rank, in their order."""
        return [name for name in names if self.owns(name)]

    def run(
        self, items: int, done: int, record_bytes: int, item_seconds: float | None = None, title: str = ''
    ) -> Progress:
        """Print the plan and return the progress to be entered.

        Args:
            items: number of items of this rank.
            done: how many of them an earlier run has finished.
            record_bytes: bytes on disk for one item.
            item_seconds: measured time of one item.
            title: of the plan, if it differs from that of the step.
        """
        print(Plan(title or self.title, items, done, record_bytes, item_seconds), flush=True)
        return Progress(self.title, items, done)


def shard_of(name: str, world_size: int) -> int:
    """Return the rank of an item: decided by its name, so that a data set that grew is divided as before."""
    digest = hashlib.sha256(name.encode(errors='surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') % world_size


def report_faults(faults: Sequence[str], good: str) -> None:
    """End a check: print ``good``, or raise with one line a fault.

    Raises:
        UserError: there are faults.
    """
    if faults:
        raise UserError('\n'.join(['damaged:', *faults]))
    print(good)
