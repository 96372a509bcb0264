"""Personal data out of text, by setting: what a checksum or a firm form can tell from any other number.

Numbers with a checksum are masked only when it holds: payment cards (ISO/IEC 7812, Luhn), IBANs (ISO 13616, mod 97) and
the national numbers listed at :data:`NATIONAL`. A national number without one, as that of the United States, cannot be told
from other digits and is left alone. Phone numbers and addresses are told by form alone, so some are missed and some numbers
are masked that are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import date

from pipeline.privacy.credentials import Mark

_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}(?:@|[ ]at[ ])(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ ./-]{0,2}(?:\(0?\d{0,5}\)[ ./-]{0,2})?\d{1,5}(?:[ ./-]{1,2}\d{2,8}){1,5}|\+\d{9,14}"
    r"|\(\d{3}\)[ ]?\d{3}[-. ]\d{4}|(?:1-)?\d{3}-\d{3}-\d{4})(?![\w-])"
)
_SAID_PHONE = re.compile(
    r"\b(?:Tel|Phone|Telephone|Telefon|Fon|Mobile?|Cell|Fax|Handy)(?:[. ]?(?:no|nr)\b)?[.:]{1,2}[ \t]{0,4}"
    r"(?P<number>[(+]?\d[\d ()./-]{5,20}\d)(?!\w)",
    re.IGNORECASE,
)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21, "CR": 22,
    "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22,
    "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30,
    "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31,
    "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip
"""Characters of an IBAN by country, from the SWIFT IBAN registry."""


def find_personal(text: str, kinds: Collection[str], mark: Mark) -> str:
    """The text with what ``mark`` gives for each piece of personal data of ``kinds`` (card, iban, id, phone, email)."""
    if not any(character.isdigit() for character in text):
        kinds = [kind for kind in kinds if kind == "email"]
    for kind, replace in _KINDS.items():
        if kind in kinds:
            text = replace(text, mark)
    return text


def is_card(digits: str) -> bool:
    """Whether these are the digits of a payment card: an issuer's range, its length, and Luhn's check digit."""
    return _issued(digits) and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit of the others."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Whether this is an IBAN without blanks: a country of the registry, its length, and remainder 1 by 97 (ISO 7064)."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _issued(digits: str) -> bool:
    n, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return n in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return n == 16
    if two in (34, 37):
        return n == 15
    if two in (36, 38, 39) or 300 <= four // 10 <= 305:
        return n == 14
    return (four == 6011 or two in (62, 64, 65) or 3528 <= four <= 3589) and n in (16, 17, 18, 19)


def _dni(found: re.Match[str]) -> bool:
    """Spain's DNI and NIE: a letter by the remainder of 23."""
    number = int(found["digits"].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == found["letter"]


def _cpf(found: re.Match[str]) -> bool:
    """Brazil's CPF, two check digits by the remainder of 11."""
    digits = [int(character) for character in found[0] if character.isdigit()]
    checks = [sum(digit * (n + 1 - i) for i, digit in enumerate(digits[:n])) * 10 % 11 % 10 for n in (9, 10)]
    return checks == digits[9:] and len(set(digits)) > 1


def _hetu(found: re.Match[str]) -> bool:
    """Finland's henkilötunnus: birthday, and a sign by the remainder of 31."""
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(found["day"] + found["number"]) % 31] == found["check"]


def _nir(found: re.Match[str]) -> bool:
    """France's NIR: 97 less the remainder by 97; Corsica's departments count as 19 and 18."""
    digits = found[0].replace(" ", "").replace("2A", "19").replace("2B", "18")
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
"""What a letter counts at an odd place of a codice fiscale; a digit counts as the letter of its number."""


def _codice(found: re.Match[str]) -> bool:
    """Italy's codice fiscale: a letter by the remainder of 26."""
    code = found[0]
    values = [int(character, 36) - (0 if character.isdigit() else 10) for character in code[:15]]
    return chr(65 + (sum(values[1::2]) + sum(_ODD[value] for value in values[::2])) % 26) == code[15]


def _pesel(found: re.Match[str]) -> bool:
    """Poland's PESEL: birthday with the century in the month, and a check digit."""
    digits = found[0]
    century = (1900, 2000, 2100, 2200, 1800)[int(digits[2:4]) // 20]
    weighted = sum(int(d) * w for d, w in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True))
    return weighted % 10 == 0 and _is_day(century + int(digits[:2]), int(digits[2:4]) % 20, int(digits[4:6]))


def _personnummer(found: re.Match[str]) -> bool:
    """Sweden's personnummer in its written form: birthday and Luhn's check digit."""
    digits = re.sub(r"\D", "", found[0])[-10:]
    return _is_day(2000, int(digits[2:4]), int(digits[4:6])) and luhn(digits)


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


NATIONAL: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    (re.compile(r"(?<!\w)(?P<digits>[XYZ]\d{7}|\d{8})-?(?P<letter>[A-HJ-NP-TV-Z])(?!\w)"), _dni),
    (re.compile(r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])"), _cpf),
    (re.compile(r"(?<!\w)(?P<day>\d{6})[-+A](?P<number>\d{3})(?P<check>[0-9A-FHJ-NPR-Y])(?!\w)"), _hetu),
    (re.compile(r"(?<!\w)[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d(?!\w)"), _nir),
    (re.compile(r"(?<!\w)[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z](?!\w)"), _codice),
    (re.compile(r"(?<![\w.+-])\d{11}(?![\w-]|\.\d)"), _pesel),
    (re.compile(r"(?<![\w-])(?:19|20)?\d{6}[-+]\d{4}(?![\w-])"), _personnummer),
)
"""Spain, Brazil, Finland, France, Italy, Poland, Sweden: a form, and the check that has to hold."""


def _cards(text: str, mark: Mark) -> str:
    def replace(found: re.Match[str]) -> str:
        return mark("card", found[0]) if is_card(re.sub(r"\D", "", found[0])) else found[0]

    return _CARD.sub(replace, text)


def _ibans(text: str, mark: Mark) -> str:
    def replace(found: re.Match[str]) -> str:
        length = _IBAN_LENGTHS.get(found[0][:2], 0)
        taken, count = 0, 0
        for character in found[0]:  # what follows an IBAN after a blank may look like a part of it
            if count == length:
                break
            taken += 1
            count += character != " "
        iban = found[0][:taken]
        return mark("iban", iban) + found[0][taken:] if is_iban(iban.replace(" ", "")) else found[0]

    return _IBAN.sub(replace, text)


def _ids(text: str, mark: Mark) -> str:
    for form, holds in NATIONAL:
        text = _checked(text, form, holds, mark)
    return text


def _checked(text: str, form: re.Pattern[str], holds: Callable[[re.Match[str]], bool], mark: Mark) -> str:
    return form.sub(lambda found: mark("id", found[0]) if holds(found) else found[0], text)


def _phones(text: str, mark: Mark) -> str:
    def said(found: re.Match[str]) -> str:
        return found[0][: -len(found["number"])] + mark("phone", found["number"])

    text = _SAID_PHONE.sub(said, text)
    return _PHONE.sub(lambda found: mark("phone", found[0]) if _dialled(found[0]) else found[0], text)


def _dialled(text: str) -> bool:
    return 8 <= sum(character.isdigit() for character in text) <= 15


def _emails(text: str, mark: Mark) -> str:
    if "@" not in text and " at " not in text:
        return text
    return _EMAIL.sub(lambda found: mark("email", found[0]), text)


_KINDS: dict[str, Callable[[str, Mark], str]] = {
    "card": _cards,
    "iban": _ibans,
    "id": _ids,
    "phone": _phones,
    "email": _emails,
}
