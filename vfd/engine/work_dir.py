"""The folders of a run that never began are removed again."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any


class StartFolders:
    """What a start creates in its work folder.

    Args:
        work_dir: folder of the run.
        config: file of the config, whose copy is written into the work folder.
    """

    def __init__(self, work_dir: str | Path, config: str | Path | None) -> None:
        self.work_dir = Path(work_dir).absolute()
        self.config = self.work_dir / Path(config).name if config else None
        self.had_config = self.config is not None and self.config.exists()
        self.new = [path for path in (self.work_dir, *self.work_dir.parents) if not path.exists()]

    def remove(self, log_dir: str | Path, logger: Any, visualizer: Any) -> None:
        """Remove the log folder of the start, and what it made around it, as far as nothing else lies there.

        Args:
            log_dir: the folder of this start.
            logger: mmengine's logger, which writes there; None when the start did not come so far.
            visualizer: mmengine's visualizer, which writes there too; or None.
        """
        for handler in [h for h in getattr(logger, 'handlers', ()) if isinstance(h, logging.FileHandler)]:
            handler.close()
            logger.handlers.remove(handler)
        if visualizer is not None:
            visualizer.close()
        for writer in (logger, visualizer):  # mmengine would give it to the next run with this name
            if writer is not None:
                type(writer)._instance_dict.pop(writer.instance_name, None)
        shutil.rmtree(log_dir, ignore_errors=True)
        if not self.had_config:
            (self.config or self.work_dir / f'{Path(log_dir).name}.py').unlink(missing_ok=True)
        for folder in self.new:  # the innermost first
            with contextlib.suppress(OSError):
                folder.rmdir()
