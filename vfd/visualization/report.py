"""A report as one HTML file: no script, nothing fetched, readable on light and dark screens."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape

from vfd.visualization.theme import DARK, LIGHT, Theme

STYLE = f"""
:root {{ color-scheme: light dark; --page: {LIGHT.page}; --text: {LIGHT.text}; --muted: {LIGHT.muted};
  --rule: {LIGHT.rule}; --accent: {LIGHT.series[0]}; --soft: #f5f7f9; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: {DARK.page}; --text: {DARK.text}; --muted: {DARK.muted};
  --rule: {DARK.rule}; --accent: {DARK.series[0]}; --soft: #1d242d; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1060px; margin: 0 auto; padding: 40px 28px 72px; }}
h1 {{ font-size: 1.75rem; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; }}
h2 {{ font-size: 1.15rem; margin: 44px 0 10px; }}
p {{ margin: 8px 0; max-width: 76ch; }}
.lead {{ color: var(--muted); margin-bottom: 24px; }}
.note {{ color: var(--muted); font-size: 0.9rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 22px 0; }}
.card {{ background: var(--soft); border-radius: 10px; padding: 14px 18px; }}
.card b {{ display: block; font-size: 1.8rem; line-height: 1.3; font-variant-numeric: tabular-nums; }}
.card span {{ color: var(--muted); font-size: 0.9rem; }}
.card.best b {{ color: var(--accent); }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 8px 18px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }}
th {{ color: var(--muted); font-weight: 500; font-size: 0.85rem; }}
td.number, th.number {{ text-align: right; padding-right: 24px; white-space: nowrap; }}
tr.best td {{ font-weight: 650; }}
figure {{ margin: 14px 0; }}
img {{ max-width: 100%; height: auto; display: block; }}
figcaption {{ color: var(--muted); font-size: 0.9rem; margin-top: 6px; max-width: 88ch; }}
pre {{ background: var(--soft); border-radius: 8px; padding: 14px 16px; overflow-x: auto;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }}
summary {{ cursor: pointer; color: var(--accent); margin: 8px 0; }}
"""


class Report:
    """Collects sections, in order, and renders them.

    Example:
        >>> report = Report('Quickstart', 'What was run.')
        >>> report.heading('Result')
        >>> report.table(['network', 'accuracy'], [['student', '0.77']])
        >>> html = report.html()

    Args:
        title: of the page.
        lead: one or two sentences below it.
    """

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self._parts = [f'<h1>{escape(title)}</h1>', f'<p class="lead">{escape(lead)}</p>']

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f'<h2>{escape(text)}</h2>')

    def text(self, text: str, note: bool = False) -> None:
        """Add a paragraph; ``note`` in small print."""
        self._parts.append(f'<p{" class=note" if note else ""}>{escape(text)}</p>')

    def cards(self, cards: Sequence[tuple[str, str]], best: int | None = None) -> None:
        """Add large numbers: (number, what it is); ``best`` is the index of the one to stress."""
        items = [
            f'<div class="card{" best" if i == best else ""}"><b>{escape(number)}</b><span>{escape(name)}</span></div>'
            for i, (number, name) in enumerate(cards)
        ]
        self._parts.append(f'<div class="cards">{"".join(items)}</div>')

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        numbers: Sequence[int] = (),
        best: int | None = None,
    ) -> None:
        """Add a table.

        Args:
            header: names of the columns.
            rows: cells.
            numbers: columns that are set flush right.
            best: index of the row to stress.
        """

        def row(cells: Sequence[str], tag: str) -> str:
            return ''.join(
                f'<{tag}{" class=number" if i in numbers else ""}>{escape(cell)}</{tag}>'
                for i, cell in enumerate(cells)
            )

        body = ''.join(
            f'<tr{" class=best" if i == best else ""}>{row(r, "td")}</tr>' for i, r in enumerate(rows)
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{row(header, "th")}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def figure(
        self, draw: Callable[[Theme], bytes], alt: str, caption: str = '', width: int | None = None
    ) -> None:
        """Add a picture, drawn for light and for dark screens.

        Args:
            draw: makes a PNG in the colours of a theme.
            alt: what it shows, for those who do not see it.
            caption: below it.
            width: in pixels of the page; default: its own, at most the page's.
        """
        light, dark = (base64.b64encode(draw(theme)).decode() for theme in (LIGHT, DARK))
        self._parts.append(
            f'<figure{f" style=max-width:{width}px" if width else ""}><picture>'
            f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
            f'<img src="data:image/png;base64,{light}" alt="{escape(alt)}"></picture>'
            + (f'<figcaption>{escape(caption)}</figcaption>' if caption else '')
            + '</figure>'
        )

    def folded(self, summary: str, content: str | Mapping[str, str]) -> None:
        """Add details that are shown on a click: preformatted text, or a table of names and values."""
        self._parts.append(f'<details><summary>{escape(summary)}</summary>')
        if isinstance(content, str):
            self._parts.append(f'<pre>{escape(content)}</pre>')
        else:
            self.table(['', ''], [[name, value] for name, value in content.items()])
        self._parts.append('</details>')

    def html(self) -> str:
        """Return the page as HTML."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(self.title)}</title><style>{STYLE}</style></head>\n'
            f'<body><main>\n{chr(10).join(self._parts)}\n</main></body></html>\n'
        )
