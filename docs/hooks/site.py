"""Build pages from texts beside the code, and turn docstring roles into links.

- ``vfd/methods/<name>/README.md`` is the page ``methods/<name>.md``, for every method; ``CONTRIBUTING.md`` and
  ``CHANGELOG.md`` are pages too. Each text exists once.
- Docstrings mark up names as Sphinx does (:class:`~vfd.teachers.Teacher`); they become links here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'(?<!!)\[([^]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)')
ROLE = re.compile(r':(?:class|func|mod|meth|attr|exc|data):<code>(~?)([\w.]+)</code>')


def sources() -> dict[str, str]:
    """Return page of the site -> file of the repository that is its text."""
    methods = sorted(ROOT.glob('vfd/methods/*/README.md'))
    pages = {f'methods/{file.parent.name}.md': file.relative_to(ROOT).as_posix() for file in methods}
    return pages | {'contributing.md': 'CONTRIBUTING.md', 'changelog.md': 'CHANGELOG.md'}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text lies elsewhere in the repository."""
    pages = sources()
    for page, source in pages.items():
        text = (ROOT / source).read_text(encoding='utf-8')
        files.append(File.generated(config, page, content=relink(text, source, page, pages)))
    return files


def relink(text: str, source: str, page: str, pages: dict[str, str]) -> str:
    """Make the relative links of a repository file right for its place in the site.

    Args:
        text: Markdown.
        source: the file, relative to the repository.
        page: its place in the site.
        pages: what :func:`sources` returns.

    Returns:
        The text; links to files that the site does not show are plain names.
    """
    shown = {file: place for place, file in pages.items()}

    def target(match: re.Match[str]) -> str:
        label, link, anchor = match[1], match[2], match[3] or ''
        file = os.path.normpath(PurePosixPath(source).parent / link)
        place = shown.get(file) or (file.removeprefix('docs/') if file.startswith('docs/') else None)
        if place is None:
            return label if '`' in label or file == label else f'{label} (`{file}`)'
        return f'[{label}]({os.path.relpath(place, PurePosixPath(page).parent)}{anchor})'

    return LINK.sub(target, text)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn Sphinx roles into links where the name is on a page, and the ``::`` before an example into ``:``."""

    def link(match: re.Match[str]) -> str:
        name = match[2].rpartition('.')[2] if match[1] else match[2]
        return f'<autoref identifier="{match[2]}" optional><code>{name}</code></autoref>'

    return ROLE.sub(link, html).replace('::</p>', ':</p>')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Say on a generated page where its text lies."""
    source: Any = sources().get(page.file.src_uri)
    return f'{markdown}\n\n---\nThis page is `{source}` of the repository.\n' if source else markdown
