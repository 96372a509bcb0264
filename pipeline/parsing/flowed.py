"""Soft line breaks of ``format=flowed`` undone (RFC 3676), so that a paragraph is one line whatever its quote depth."""

from __future__ import annotations


def unflow(text: str, delete_space: bool) -> str:
    """Joins lines that end in a space with the next of the same quote depth; the signature mark ``-- `` stands alone."""
    if " \n" not in text:
        return text
    out: list[str] = []
    pieces: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        if content.startswith(" "):
            content = content[1:]
        if pieces and depth != open_depth:
            out.append(_quoted(open_depth, "".join(pieces)))
            pieces.clear()
        if content.endswith(" ") and content != "-- ":
            pieces.append(content[:-1] if delete_space else content)
            open_depth = depth
            continue
        if content == "-- " and pieces:
            out.append(_quoted(open_depth, "".join(pieces)))
            pieces.clear()
        pieces.append(content)
        out.append(_quoted(depth, "".join(pieces)))
        pieces.clear()
    if pieces:
        out.append(_quoted(open_depth, "".join(pieces)))
    return "\n".join(out)


def _quoted(depth: int, content: str) -> str:
    return f"{'>' * depth} {content}" if depth else content
