"""HTML in small pieces: what is text is escaped, whatever it holds."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from w2ltune.files import write_text

LONG_CHARACTERS = 40
"""Longer words in a table are folded."""

_VOID = ("meta",)


class Html(str):
    """A text that is HTML already; any other string is escaped where it becomes a part of it."""

    __slots__ = ()


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Return the parts as one piece of HTML.

    Example:
        >>> join(["a < b", element("b", "c & d")])
        'a &lt; b<b>c &amp; d</b>'
    """
    return Html(separator.join(map(_escaped, parts)))


def element(name: str, /, *content: str, **attributes: str) -> Html:
    """Return an element.

    Args:
        name: Its tag.
        content: Texts and elements within.
        attributes: By name; ``class_`` is written ``class``, ``aria_label`` ``aria-label``.

    Example:
        >>> element("td", "<s>", class_="text")
        '<td class="text">&lt;s&gt;</td>'
    """
    opening = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{opening}>" if name in _VOID else f"<{opening}>{join(content)}</{name}>")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text_columns: Collection[str] = (),
    marked: Collection[int] = (),
) -> Html:
    """Return a table, which scrolls by itself where the screen is too narrow for it.

    Args:
        head: The columns.
        rows: As many cells each.
        text_columns: The columns that hold words; all others are aligned as numbers.
        marked: Indices of the rows that stand out.
    """

    def row(tag: str, cells: Sequence[str], **attributes: str) -> Html:
        pairs = zip(head, cells, strict=True)
        return element("tr", *(cell(tag, *pair) for pair in pairs), **attributes)

    def cell(tag: str, column: str, text: str) -> Html:
        long = " long" if len(text) > LONG_CHARACTERS else ""
        return element(tag, text, class_=f"text{long}" if column in text_columns else "number")

    body = [
        row("td", cells, **({"class_": "marked"} if index in marked else {}))
        for index, cells in enumerate(rows)
    ]
    grid = element("table", element("thead", row("th", head)), element("tbody", *body))
    return element("div", grid, class_="scroll")


def _escaped(text: str) -> str:
    if isinstance(text, Html):
        return text
    # A file name that is no UTF-8 must not keep the page from being written.
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


STYLE = Html(
    """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2328; --soft: #5b6670;
  --line: #d9dee3; --panel: #f5f7f9; --accent: #0b5cad; --warn-ground: #fff6e0;
  --warn-line: #d9a200; --sub: #fde3c8; --del: #d7e6fa; --ins: #dcefd8; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15191d; --ink: #e4e8ec; --soft: #9aa6b1; --line: #333b43; --panel: #1d2329;
    --accent: #7db7f5; --warn-ground: #332a10; --warn-line: #b98d13; --sub: #5a3715;
    --del: #1c3d63; --ins: #23482a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 66rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { margin: 0; font-size: 1.1rem; font-weight: 600; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 0.25rem; font-size: 1.25rem; font-weight: 600; }
h3 { margin: 1.25rem 0 0.5rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0.4rem 0; max-width: 46rem; }
.says, figcaption, .small { color: var(--soft); font-size: 0.92rem; }
.headline { margin: 0.75rem 0 0.25rem; max-width: none; font-variant-numeric: tabular-nums; }
.headline strong { display: block; font-size: 2rem; line-height: 1.2; font-weight: 650; }
code, pre { font: 0.88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
pre { margin: 0.5rem 0; padding: 0.75rem 1rem; overflow-x: auto; background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; }
.warning { margin: 0.6rem 0; padding: 0.5rem 0.9rem; max-width: none;
  background: var(--warn-ground); border-left: 4px solid var(--warn-line);
  border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
.scroll { margin: 0.75rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.6rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
.number { text-align: right; }
.text { text-align: left; }
td.long { white-space: normal; min-width: 16rem; }
tr.marked td { background: var(--panel); font-weight: 650; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; margin: 0.9rem 0; }
figure { margin: 0; flex: 0 1 auto; min-width: 0; max-width: 100%; }
figure > div { overflow-x: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
figure svg { display: block; max-width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-top: 0.3rem; width: 0; min-width: 100%; }
details { margin: 0.6rem 0; }
summary { cursor: pointer; color: var(--accent); }
.utterance { margin: 0.9rem 0 1.4rem; }
.aligned { display: flex; flex-wrap: wrap; gap: 0.3rem 0.1rem; }
.aligned > span { display: inline-flex; flex-direction: column; padding: 0 0.25rem;
  border-radius: 4px; line-height: 1.35; text-align: center; white-space: pre; }
.aligned > span > span { min-height: 1.35em; }
.aligned .label { color: var(--soft); font-size: 0.85rem; text-align: right; }
.aligned .label > span { line-height: 1.588; }
.aligned .mark { font-size: 0.72rem; font-weight: 700; }
.substitution { background: var(--sub); }
.deletion { background: var(--del); }
.insertion { background: var(--ins); }
@media (max-width: 40rem) { body { padding: 1rem 0.8rem 3rem; }
  .headline strong { font-size: 1.45rem; } th, td { padding: 0.25rem 0.45rem; } }
@media print { body { max-width: none; } .scroll { overflow: visible; } }
"""
)


def section(title: str, says: str, *content: Html) -> Html:
    """Return a section: its title, one sentence that says what it shows, and that."""
    return element("section", element("h2", title), element("p", says, class_="says"), *content)


def figure(caption: str, svg: Html) -> Html:
    """Return a plot with its caption."""
    drawing = element("div", svg, role="img", aria_label=caption)
    return element("figure", drawing, element("figcaption", caption))


def side_by_side(*figures: Html) -> Html:
    """Return figures in a row, where there is room."""
    return element("div", *figures, class_="plots")


NAME = "report.html"


def write_page(folder: Path, what: str, body: Iterable[str]) -> Path:
    """Write ``report.html`` into a study's folder and return its path."""
    write_text(folder / NAME, page(f"{folder.resolve().name}: {what} report", body))
    return folder / NAME


def page(title: str, body: Iterable[str]) -> Html:
    """Return a whole document that needs nothing but itself."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", STYLE),
    )
    document = element("html", head, "\n", element("body", join(body, "\n")), lang="en")
    return Html(f"<!DOCTYPE html>\n{document}\n")
