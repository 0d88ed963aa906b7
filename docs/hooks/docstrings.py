"""Read ``Example:`` in docstrings as the section ``Examples:``, so that its lines become a code block."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Accept ``Example:``; griffe reads the plural only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r'^( *)Example:$', r'\1Examples:', obj.docstring.value, flags=re.M)
