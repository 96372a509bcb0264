"""What is wrong with a request's form, in one sentence: the first field that is wrong, and how it should be.

What a field held stays out of it: it is mail, or about mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streams.server.errors import ApiError

Problem = Mapping[str, Any]
"""As pydantic tells it: ``type``, ``loc``, ``msg`` and, by type, ``ctx``."""

PLACES = frozenset({"body", "query", "path", "header"})
BRANCHES = ("function-", "list[", "constrained-", "str", "nullable")
"""How the parts of a location begin that name no field, but one of several forms that it may have."""

OBJECT = "a JSON object, sent with `Content-Type: application/json`"
KINDS = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
}
SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "this server does not know this parameter",
    "none_required": "is not supported; leave it out",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must not be empty",
    "too_long": "may hold {max_length} at most",
    "string_too_short": "must not be empty",
    "string_too_long": "may have {max_length:,} characters at most",
}


def invalid_request(problems: Sequence[Problem]) -> ApiError:
    """The first field that is wrong, why, and how many more there are."""
    if any(problem["type"] == "json_invalid" for problem in problems):
        return ApiError(400, "the body is not JSON", code="invalid_value")
    by_field: dict[str, list[Problem]] = {}
    for problem in problems:
        by_field.setdefault(_field(problem), []).append(problem)
    # Of a field with several forms each says what it lacks: the one that was meant has got beyond its kind.
    telling = {field: found for field, found in by_field.items() if not _is_kind_alone(field, found, by_field)}
    if not telling:
        return ApiError(400, "the request is not valid", code="invalid_value")
    field, found = next(iter(telling.items()))
    more = f" ({len(telling) - 1} more)" if len(telling) > 1 else ""
    said = f"{field}: {_said(found)}" if field else _said_of_all(found[0])
    return ApiError(400, said + more, param=field or None, code="invalid_value")


def _field(problem: Problem) -> str:
    path = [str(part) for part in problem["loc"]]
    path = path[1:] if path and path[0] in PLACES else path
    return ".".join(part for part in path if not part.startswith(BRANCHES))


def _is_kind_alone(field: str, found: Sequence[Problem], by_field: Mapping[str, Sequence[Problem]]) -> bool:
    """Whether a field is only said to be of the wrong kind, while parts of it are looked at as the right one."""
    within = any(other.startswith(f"{field}.") for other in by_field)
    return bool(field) and within and all(problem["type"] in KINDS for problem in found)


def _said(found: Sequence[Problem]) -> str:
    kinds = [KINDS[problem["type"]] for problem in found if problem["type"] in KINDS]
    if len(kinds) == len(found):
        return f"must be {' or '.join(dict.fromkeys(kinds))}"
    first = next(problem for problem in found if problem["type"] not in KINDS)
    context = first.get("ctx") or {}
    if context.get("max_length") == 0 or context.get("expected") in ("False", "0", "-1 or 0") or context.get("le") == 0:
        return SENTENCES["none_required"]
    try:
        return SENTENCES[first["type"]].format(**context)
    except KeyError:
        return _own_words(first)


def _said_of_all(problem: Problem) -> str:
    """Of the body as a whole."""
    if problem["type"] == "missing":
        return f"the body is missing: {OBJECT}"
    return f"the body must be {OBJECT}" if problem["type"] in KINDS else _own_words(problem)


def _own_words(problem: Problem) -> str:
    """Those of the form itself, as our own checks have."""
    return str(problem["msg"]).removeprefix("Value error, ")
