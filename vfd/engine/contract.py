"""What the engine needs of a model that a method of vfd trains."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class TrainedMethod(Protocol):
    """A model into which only complete checkpoints are loaded; any other model is treated as mmengine treats it.

    Attributes:
        accumulative_counts: iterations of one optimizer step; the Runner sets it.
    """

    accumulative_counts: int

    def method_state(self) -> dict[str, Any]:
        """Return what a resumed run has to know beside the weights."""

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`method_state` gave."""

    def teacher_fingerprint(self) -> dict[str, Any] | None:
        """Return which teacher the model trains under; None without one."""
