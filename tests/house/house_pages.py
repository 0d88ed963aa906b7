"""The pages of the project and what they print: commands, Python blocks, paths."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / 'README.md',
        ROOT / 'CONTRIBUTING.md',
        *ROOT.glob('docs/**/*.md'),
        *ROOT.glob('vfd/methods/*/README.md'),
    ]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation of a list they may stand in."""
    found = re.finditer(rf'^( *)```{language}\n(.*?)^\1```$', page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf'^{match[1]}', '', match[2], flags=re.MULTILINE) for match in found]


def commands(page: Path) -> list[str]:
    """Every command of the bash blocks, continued lines joined."""
    lines = '\n'.join(blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
    return [' '.join(line.split()) for line in lines if line.strip() and not line.startswith('#')]


def is_config(block: str) -> bool:
    """A Python block without an import is (a part of) a config."""
    return re.search(r'^(import|from) ', block, re.MULTILINE) is None
