"""How a table fits a terminal: which columns become narrower, and what to do when none can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

FIRM = 16
"""Characters of text that are never broken, as wide as a time; an id of an adapter, run or thread is no longer."""

EDGES = 2
"""Characters that a table takes beside its columns and the gaps between them."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column needs: ``natural`` characters to show all on one line, ``floor`` at the least."""

    natural: int
    floor: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The widths of a table's columns, in characters, and of the gaps between them."""

    widths: tuple[int, ...]
    gap: int


def header_words(header: str) -> list[str]:
    """Where a header may be broken: at spaces, and behind an underscore, which stays."""
    return [word for part in header.split(" ") for word in re.findall(r"[^_]*_|[^_]+", part)] or [""]


def broken(header: str, width: int) -> str:
    """The header in lines of at most ``width`` characters, as far as its words allow."""
    lines = [""]
    for word in header_words(header):
        joint = "" if not lines[-1] or lines[-1].endswith("_") else " "
        if lines[-1] and len(lines[-1]) + len(joint) + len(word) > width:
            lines.append(word)
        else:
            lines[-1] += joint + word
    return "\n".join(lines)


def column(header: str, cells: Sequence[str], *, text: bool) -> Column:
    """What a column of these cells needs. Only ``text`` may be broken, and only beyond :data:`FIRM` characters: half a
    number or half a time says nothing."""
    from rich.cells import cell_len

    widest = max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0)
    firm = min(widest, FIRM) if text else widest
    return Column(max(cell_len(header), widest), max(firm, *(cell_len(word) for word in header_words(header))))


def fitted(columns: Sequence[Column], room: int) -> Fit | None:
    """The widest layout that ``room`` characters hold: first narrower gaps, then narrower columns, the widest first.
    None where even the floors do not fit."""
    for gap in (3, 2):
        if _taken([one.natural for one in columns], gap) <= room:
            return Fit(tuple(one.natural for one in columns), gap)
    for gap in (2, 1):
        widths = [one.natural for one in columns]
        while _taken(widths, gap) > room:
            loose = [index for index, one in enumerate(columns) if widths[index] > one.floor]
            if not loose:
                break
            widths[max(loose, key=lambda index: widths[index])] -= 1
        else:
            return Fit(tuple(widths), gap)
    return None


def blocks(columns: Sequence[Column], room: int) -> list[list[int]] | None:
    """The columns by index in groups that fit, each led by the first column; None where one alone does not."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(columns)):
        if fitted([columns[each] for each in (*groups[-1], index)], room) is not None:
            groups[-1].append(index)
        elif fitted([columns[0], columns[index]], room) is not None:
            groups.append([0, index])
        else:
            return None
    return groups


def _taken(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1) + EDGES
