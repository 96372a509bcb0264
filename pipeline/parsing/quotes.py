"""What of a mail its author wrote: quotes, attribution lines, signatures, forwarded headers and list footers taken out.

Everything works on whole lines, so what is left is the author's text as it stood, answers between quotes included.
Rules are about shape (a mark, a date, an address, a colon) before they are about words, since shape is common to mail
programs of all languages; the words are in ``phrases``.
"""

from __future__ import annotations

import re
from itertools import compress

from pipeline.parsing.phrases import (
    APPLE_FORWARD,
    APPLE_STARTS,
    ASIDE,
    ASIDE_STARTS,
    CLOSINGS,
    DATED,
    END_OF_FORWARD,
    FIELD_LINE,
    FIRST_FIELD,
    FIRST_LETTERS,
    FOOTER_WORDS,
    OPENERS,
    ORIGINAL,
    STRIPPED,
    WROTE,
    WROTE_ENDINGS,
)

_MAX_SIGNATURE = 20
_MAX_FOOTER = 15
_MAX_BLOCK = 40
_MAX_BLOCKS = 500
_MAX_LINE = 400

_TELLING = frozenset(">_=*~[:")
_COLONS = (":", "：")
_ODD_MARK = re.compile(r"[ \t]?([|:}#%!](?=[ \t]|$)|[A-Za-z]{1,5}>(?=[ \t]|$)|[^\w\s<>]{1,2}>)")
_RULE = re.compile(r"[-_=*~]{10,}\s*$")
_PGP = re.compile(r"-----BEGIN PGP (SIGNATURE|SIGNED MESSAGE|PUBLIC KEY BLOCK)-----")
_SCRUBBED = re.compile(r"-{10,} next part -{10,}")
_CONTACT = re.compile(r"@|://|www\.|\d{3}[\s.)/-]?\d{2}|\+\d")
_INDENTED = re.compile(r"\n[ \t]+[>\[]")


def own_words(text: str, *, answers: bool = False) -> str:
    """The lines of ``text`` that its author wrote, in order; where something was taken out, blank lines are collapsed.

    ``answers`` says that the mail's header marks it as a reply or a forward. Then an earlier mail that follows unmarked
    under its ``From:``, ``Sent:``, ``Subject:`` lines, as Outlook leaves it, is a copy and is taken out too. Without that
    evidence only those lines are: what follows may be all that the mail has to say.
    """
    lines = text.split("\n")
    indented = text.startswith(" ") or _INDENTED.search(text)
    marks = [line.lstrip()[:1] for line in lines] if indented else [line[:1] for line in lines]
    page = _Page(lines, marks, answers)
    following = 0
    for index, mark in enumerate(marks):
        if (mark in _TELLING or (mark >= "-" and (":" if mark >= "0" else "--") in lines[index])) and index >= following:
            following = page.read(index)
    page.aside_above(len(lines))
    if not page.taken:
        return text
    return "\n".join(compress(lines, page.stays)).strip("\n")


class _Page:
    """The lines of a text, the first character of each, and which of them stay.

    ``end`` is where what was last taken out ends, and ``gap`` whether a blank line stays above it. ``first`` is at or
    before the first line that stays; ``blocks`` counts the searches for header lines, which are bounded.
    """

    def __init__(self, lines: list[str], marks: list[str], answers: bool) -> None:
        self.lines = lines
        self.marks = marks
        self.answers = answers
        self.stays = [True] * len(lines)
        self.taken = False
        self.gap = False
        self.end = -1
        self.first = 0
        self.blocks = 0

    def take(self, start: int, end: int) -> int:
        """Takes out the lines from ``start`` up to ``end``, where reading goes on; and the blank ones that follow, if what
        stays above ends in a blank line too."""
        if start != self.end:
            self.gap = start == 0 or self.blank(start - 1)
        if self.gap:
            end = self.filled(end)
        self.stays[start:end] = [False] * (end - start)
        self.taken = True
        self.end = end
        return end

    def blank(self, index: int) -> bool:
        return not self.marks[index] or not self.lines[index].strip()

    def filled(self, index: int) -> int:
        """The first line from ``index`` on that is not blank, or the number of lines."""
        while index < len(self.lines) and self.blank(index):
            index += 1
        return index

    def paragraph_end(self, index: int) -> int:
        """The first line from ``index`` on that is blank, or the number of lines."""
        while index < len(self.lines) and not self.blank(index):
            index += 1
        return index

    def aside_above(self, index: int) -> None:
        """Takes out the line that a telephone adds below a text, if the last line above ``index`` is one."""
        at = index - 1
        while at >= 0 and index - at <= 4 and self.blank(at):
            at -= 1
        if at >= 0 and self.lines[at].startswith(ASIDE_STARTS) and ASIDE.match(self.lines[at][:_MAX_LINE]):
            self.take(at, at + 1)

    def read(self, index: int) -> int:
        """Judges the line at ``index`` and what belongs to it; the index to go on from."""
        mark, line = self.marks[index], self.lines[index][:_MAX_LINE]
        if mark == ">":
            return self.quote(index)
        if mark == "-":
            return self.dashes(index, line)
        if mark in "_=*~" and _RULE.match(line):
            return self.rule(index)
        if mark == "[":
            return self.take(index, index + 1) if STRIPPED.match(line) else index + 1
        if line.endswith(_COLONS):
            if line.startswith(APPLE_STARTS) and APPLE_FORWARD.match(line):
                return self.take(index, index + 1)
            if (start := self.dated_attribution(index)) >= 0:
                return self.attributed(start, index + 1)
        if mark in FIRST_LETTERS and ":" in line[:16] and FIRST_FIELD.match(line) and (end := self.block_end(index, 4)):
            return self.earlier_mail(index, end)
        return index + 1

    def quote(self, index: int) -> int:
        """A run of lines marked with ``>``, and the attribution above it."""
        end = index + 1
        while end < len(self.marks) and self.marks[end] == ">":
            end += 1
        above = index - 1
        while above >= 0 and index - above <= 3 and self.blank(above):
            above -= 1
        head = index
        if above >= 0 and self.stays[above]:
            start = self.dated_attribution(above)
            if start < 0:
                start = self.named_attribution(above)
            if start >= 0:
                self.take(start, above + 1)
                head = start
        self.aside_above(head)
        return self.take(index, end)

    def dated_attribution(self, last: int) -> int:
        """Where the attribution that ends at ``last`` begins: a date and a verb or an address, in one to four lines; -1
        where there is none."""
        tail = self.lines[last].rstrip()
        if not (tail.endswith(_COLONS) or _last_word(tail) in WROTE) or not ("@" in tail or _says(tail)):
            return -1
        whole = ""
        found = -1
        for start in range(last, max(last - 4, -1), -1):
            line = self.lines[start][:_MAX_LINE].strip()
            if not line or not self.stays[start]:
                break
            whole = f"{line} {whole}"
            first = line.split(None, 1)[0].strip("*_,.\"'(").lower()
            if (
                (first in OPENERS or first[:1].isdigit())
                and DATED.search(whole)
                and ("@" in whole or _says(whole.rstrip()))
            ):
                found = start
                if first in OPENERS:
                    break
        return found

    def named_attribution(self, last: int) -> int:
        """Where an attribution without a date begins, such as ``Ann <ann@example.org> wrote:``; -1 where there is none."""
        line = self.lines[last].strip()
        if len(line) > 160:
            return -1
        if line.endswith((":", "：", "...")):
            return last if "@" in line or _says(line) else -1
        return last if _last_word(line) in WROTE else -1

    def attributed(self, start: int, end: int) -> int:
        """Takes out a dated attribution, and what follows if it is marked as a quote in another way than by ``>``.

        What follows unmarked stays: it may as well be the answer, above which the quote was deleted.
        """
        self.take(start, end)
        self.aside_above(start)
        below = self.filled(end)
        odd = _ODD_MARK.match(self.lines[below]) if below < len(self.lines) else None
        if odd and self.marks[below] != ">":
            while below < len(self.lines) and (self.blank(below) or self.lines[below].lstrip().startswith(odd[1])):
                below += 1
            return self.take(end, below)
        return end

    def dashes(self, index: int, line: str) -> int:
        """A line that begins with ``-``: a signature mark, the head of an earlier mail, PGP armour, a rule."""
        line = line.rstrip()
        if line in ("--", "- --"):  # PGP puts dashes before dashes
            return self.signature(index) if self.any_above(index) else index + 1
        if line[-1] != "-":
            return index + 1
        if ORIGINAL.match(line):
            return self.earlier_mail(index, self.block_end(self.filled(index + 1), 1) or index + 1)
        if pgp := _PGP.match(line):
            return self.armour(index, pgp[1])
        if _SCRUBBED.match(line):
            return self.take(index, self.paragraph_end(index + 1))
        return self.rule(index) if _RULE.match(line) else index + 1

    def signature(self, index: int) -> int:
        """From the mark to the next quote or earlier mail, unless what stands there are words rather than a card.

        A block that opens with a sentence, a mere closing ("Regards, Ann") or one longer than a signature is kept.
        """
        block: list[str] = []
        end = index + 1
        while end < len(self.lines) and (mark := self.marks[end]) != ">":
            line = self.lines[end].strip()
            if line:
                if mark == "-" and (line == "--" or ORIGINAL.match(line[:_MAX_LINE])):
                    break
                if line[-1] in ":：" and self.dated_attribution(end) > index:
                    break
                block.append(line)
            end += 1
        if (
            block
            and (len(block) > _MAX_SIGNATURE or _is_sentence(block[0]) or _is_closing(block))
            and not _is_footer(block[:4])
        ):
            return index + 1
        return self.take(index, end)

    def armour(self, index: int, kind: str) -> int:
        if kind == "SIGNED MESSAGE":
            return self.take(index, self.paragraph_end(index + 1))
        for end in range(index + 1, min(index + 200, len(self.lines))):
            if self.lines[end].startswith("-----END PGP"):
                return self.take(index, end + 1)
        return self.take(index, index + 1)

    def rule(self, index: int) -> int:
        """A line of dashes or underscores: above an earlier mail's header or a list's footer, else the author's own."""
        below = self.filled(index + 1)
        if below == len(self.lines):
            return index + 1
        if FIRST_FIELD.match(self.lines[below][:_MAX_LINE]) and (end := self.block_end(below, 3)):
            return self.earlier_mail(index, end)
        end = below
        filled = 0
        while end < len(self.lines) and self.marks[end] != ">" and filled <= _MAX_FOOTER:
            filled += not self.blank(end)
            end += 1
        footer = filled <= _MAX_FOOTER and _is_footer(self.lines[below : below + 4])
        return self.take(index, end) if footer else index + 1

    def block_end(self, index: int, least: int) -> int:
        """The end of the header lines of an earlier mail that begin at ``index``, 0 where fewer than ``least`` different
        ones stand there.

        A field may run on over a line or two; the last ends at a blank line.
        """
        self.blocks += 1
        if self.blocks > _MAX_BLOCKS:
            return 0
        names: set[str] = set()
        end = 0
        loose = 0
        for at in range(index, min(index + _MAX_BLOCK, len(self.lines))):
            field = FIELD_LINE.match(self.lines[at][:_MAX_LINE])
            if field:
                names.add(field[1].lower())
                end = at + 1
                loose = 0
                continue
            loose += 1
            if loose > 2 or (self.blank(at) and not (at + 1 < len(self.lines) and FIELD_LINE.match(self.lines[at + 1]))):
                break
        if len(names) < least:
            return 0
        closed = self.paragraph_end(end)
        return closed if closed - end <= 1 and closed < len(self.lines) else end

    def earlier_mail(self, start: int, end: int) -> int:
        """The head of an earlier mail; in an answer the mail too, if words stand above it and its lines are not marked."""
        self.take(start, end)
        self.aside_above(start)
        below = self.filled(end)
        if not self.answers or below == len(self.lines) or self.marks[below] == ">" or not self.any_above(start):
            return end
        for at in range(below, len(self.lines)):
            if self.marks[at] == "-" and END_OF_FORWARD.match(self.lines[at][:_MAX_LINE]):
                return self.take(end, at + 1)
        return self.take(end, len(self.lines))

    def any_above(self, index: int) -> bool:
        """Whether a line above ``index`` is neither blank nor taken out."""
        while self.first < index and (not self.stays[self.first] or self.blank(self.first)):
            self.first += 1
        return self.first < index


def _is_closing(block: list[str]) -> bool:
    """Whether a few lines only take leave ("Regards, Ann"), without telephone, address or link."""
    if len(block) > 4 or block[0].split(None, 1)[0].strip(",.!*-").lower() not in CLOSINGS:
        return False
    return not any(map(_CONTACT.search, block))


def _is_sentence(line: str) -> bool:
    """Whether a line runs on in small letters, as sentences do and names, titles and addresses do not."""
    return sum(word[0].islower() for word in line.split() if "@" not in word and "." not in word[:-1]) >= 3


def _last_word(line: str) -> str:
    return line[line.rfind(" ") + 1 :].rstrip(":：.").lower()


def _says(line: str) -> bool:
    """Whether an attribution's verb is in the line."""
    return not WROTE.isdisjoint(line.lower().replace(":", " ").split()) or line.rstrip(":： ").endswith(WROTE_ENDINGS)


def _is_footer(lines: list[str]) -> bool:
    """Whether a list server speaks: of unsubscribing, or of a mailing list and its address."""
    near = " ".join(line[:_MAX_LINE] for line in lines).lower()
    return any(word in near for word in FOOTER_WORDS) or ("mailing list" in near and "@" in near)
