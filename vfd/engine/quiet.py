"""What mmengine logs of every run and few read: kept out of the console or out of the log altogether.

At the level DEBUG everything is written as mmengine writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger

_NOWHERE = (
    'Hooks will be executed in the following order',
    'Distributed training is not used, all SyncBatchNorm',
)
_IN_THE_FILE_ONLY = ('System environment:', 'Config:\n')  # the config also lies in the work folder


class _Drop(logging.Filter):
    """Drop messages that begin with one of some texts."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.msg
        return not (isinstance(text, str) and text.lstrip('\n-').startswith(self.beginnings))


_drop_everywhere, _drop_on_console = _Drop(_NOWHERE), _Drop(_IN_THE_FILE_ONLY)


def quieten(logger: MMLogger) -> None:
    """Leave out the list of hooks, and print environment and config into the log file only."""
    if _is_verbose(logger):
        return
    logger.addFilter(_drop_everywhere)
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(_drop_on_console)


@contextmanager
def quiet_init_weights(model: Any) -> Iterator[None]:
    """Leave out the two lines that ``model.init_weights()`` of mmengine logs for every parameter."""
    if not hasattr(model, '_dump_init_info') or _is_verbose(MMLogger.get_current_instance()):
        yield
        return
    model._dump_init_info = lambda: None
    try:
        yield
    finally:
        del model._dump_init_info


def _is_verbose(logger: MMLogger) -> bool:
    """Whether the level is DEBUG (mmengine sets it on the handlers, not on the logger)."""
    return any(handler.level <= logging.DEBUG for handler in logger.handlers)
