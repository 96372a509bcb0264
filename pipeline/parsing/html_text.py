"""HTML mail to the text a reader sees: blocks on lines of their own, quoted blocks marked with ``>`` as in plain mail."""

from __future__ import annotations

import re

_BLOCKS = frozenset(
    {
        "address", "article", "aside", "body", "center", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form",
        "h1", "h2", "h3", "h4", "h5", "h6", "header", "html", "li", "main", "nav", "ol", "p", "pre", "section", "table",
        "tr", "ul", "blockquote",
    }
)  # fmt: skip
_APART = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "ul", "ol"})
_UNSEEN = frozenset({"head", "script", "style", "title", "noscript", "template", "object", "svg", "select", "textarea"})
_BLANKS = re.compile(r"[ \t\r\n\f\v\u200b]+")
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]{0,40})?[^>]*>?")
_SELF_CLOSED = frozenset(
    {
        "area", "base", "br", "col", "dd", "dt", "hr", "img", "input", "li", "link", "meta", "option", "p", "tbody", "td",
        "th", "tr", "wbr",
    }
)  # fmt: skip
_SMALL = 20_000
_MAX_DEPTH = 1000
_MAX_TAG = 16_000
_MAX_NODES = 300_000
_MAX_QUOTES = 20


def html_to_text(html: str) -> str:
    """The visible text of ``html``, at most ``_MAX_NODES`` elements of it. Never raises.

    The parser needs quadratic time for elements nested by the ten thousand and for tags of endless attributes; what looks
    like that has its tags cut out instead.
    """
    if len(html) > _SMALL and not _is_tame(html):
        return _Lines.of_plain(_TAG.sub(" ", html))
    from selectolax.lexbor import LexborHTMLParser, LexborNode

    root: LexborNode | None = LexborHTMLParser(html).root
    lines = _Lines()
    node = root
    depth = 0
    leaving = False
    for _ in range(2 * _MAX_NODES):
        if node is None:
            break
        tag = node.tag or ""
        if leaving:
            lines.leave(tag)
        elif tag == "-text":
            lines.text(node.text_content or "")
        elif tag not in _UNSEEN:
            lines.enter(tag)
            child = node.first_child
            if child is not None:
                node = child
                depth += 1
                continue
            lines.leave(tag)
        if depth == 0:
            break
        following = node.next
        leaving = following is None
        depth -= leaving
        node = node.parent if leaving else following
    return lines.finish()


def _is_tame(html: str) -> bool:
    """Whether no tag is huge and elements that need an end tag nest less than ``_MAX_DEPTH`` deep."""
    depth = 0
    for match in _TAG.finditer(html):
        if match.end() - match.start() > _MAX_TAG:
            return False
        name = match[2]
        if name and name.lower() not in _SELF_CLOSED:
            depth = max(depth - 1, 0) if match[1] else depth + 1
            if depth > _MAX_DEPTH:
                return False
    return True


class _Lines:
    """Text laid out in lines as elements are entered and left; blank lines between paragraphs, ``>`` before quotes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.current: list[str] = []
        self.quotes = 0
        self.depth = 0
        self.preformatted = 0
        self.apart = False

    @classmethod
    def of_plain(cls, text: str) -> str:
        return _BLANKS.sub(" ", text).strip()

    def enter(self, tag: str) -> None:
        if tag == "br":
            self._end_line(forced=True)
        elif tag == "hr":
            self._end_line()
            self.apart = True
        elif tag in _BLOCKS:
            self._end_line()
            self.apart = self.apart or tag in _APART
            if tag == "blockquote":
                self.quotes += 1
            elif tag == "pre":
                self.preformatted += 1
            elif tag == "li":
                self.current.append("- ")
        elif tag in ("td", "th") and self.current and not self.current[-1].endswith(" "):
            self.current.append(" ")

    def leave(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._end_line()
            self.apart = self.apart or tag in _APART
            if tag == "blockquote":
                self.quotes -= 1
            elif tag == "pre":
                self.preformatted -= 1

    def text(self, text: str) -> None:
        if self.preformatted:
            first, *others = text.split("\n")
            self.current.append(first)
            for other in others:
                self._end_line(forced=True)
                self.current.append(other)
            return
        words = _BLANKS.sub(" ", text)
        if words == " " and not self.current:
            return
        self.current.append(words)

    def finish(self) -> str:
        self._end_line()
        return "\n".join(self.done).strip("\n")

    def _end_line(self, *, forced: bool = False) -> None:
        line = "".join(self.current).replace("\xa0", " ")
        self.current.clear()
        line = line.rstrip() if self.preformatted else _BLANKS.sub(" ", line).strip()
        if not line and not forced:
            return
        depth = min(self.quotes, _MAX_QUOTES)
        mark = ">" * depth
        if self.apart and self.done and self.done[-1].strip(">"):
            self.done.append(">" * min(depth, self.depth))
        self.apart = False
        self.depth = depth
        self.done.append(f"{mark} {line}" if mark and line else mark or line)
