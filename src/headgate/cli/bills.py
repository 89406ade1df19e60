"""Bills of providers as files: their forms, columns, days and figures."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import msgspec

from headgate.policy import periods

Figure = Literal["requests", "input", "cached", "cache_write", "output", "cost_nano"]


MAX_FIGURE = 1 << 53  # above it a bill is damaged
_MILLISECONDS = 1e11  # as Unix seconds it would be the year 5138

_GENERIC = {
    "when": ("time", "timestamp", "created_at", "hour", "day", "date"),
    "model": ("model", "model_name", "model_id"),
    "requests": ("requests", "request_count", "calls"),
    "input": ("input", "input_tokens", "prompt_tokens"),
    "uncached": ("uncached_input", "uncached_input_tokens"),
    "cached": (
        "cached",
        "cached_tokens",
        "cached_input_tokens",
        "cache_read",
        "cache_read_tokens",
        "cache_read_input_tokens",
    ),
    "cache_write": ("cache_write", "cache_write_tokens", "cache_creation_input_tokens"),
    "output": ("output", "output_tokens", "completion_tokens"),
    "cost": ("cost", "cost_usd"),
    "": (
        "total_tokens",
        "request_id",
        "generation_id",
        "key",
        "api_key",
        "reasoning",
        "reasoning_tokens",
        "session",
        "upstream",
        "provider",
    ),
}
_MINIMAX = {
    "when": ("created_at", "ymd", "consume_time"),
    "model": ("model",),
    "method": ("method",),
    "status": ("status", "result"),
    "input": ("consume_input_token",),
    "output": ("consume_output_token",),
    "cost": ("consume_cash",),
    "": (
        "consume_token",
        "consume_cash_after_voucher",
        "api_token_name",
        "group_id",
        "mail",
        "creator_name",
    ),
}
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {"generic": _GENERIC, "minimax": _MINIMAX}
_NEEDED = ("when", "model")
_HOURS = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d)-\d\d:\d\d")  # 2026-06-30 11:00-12:00
_DAY = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)")


class BadBill(Exception):
    """What in the bill cannot be read, and where."""


class Line(msgspec.Struct, frozen=True):
    """One line of the bill as it is meant; `cost_nano` and the others are None where it says none."""

    day: date
    model: str  # in the provider's words
    figures: dict[Figure, int]


def read(file: Path, provider: str, zone: tzinfo) -> Iterator[Line]:
    """The lines of a bill; BadBill names the line and the column at fault."""
    columns = COLUMNS[provider]
    known = {name: role for role, names in columns.items() for name in names}
    for number, record in _records(file):
        unknown = [name for name in record if name not in known]
        if unknown:
            useful = ", ".join(n for n, role in known.items() if role)
            raise BadBill(
                f"line {number}: nobody knows the column `{str(unknown[0])[:64]}`. A {provider} bill"
                f" has: {useful}; of no use, but allowed: {', '.join(columns[''])}."
            )
        fields: dict[str, object] = {}
        for role, names in columns.items():
            stated = next((record[n] for n in names if record.get(n) not in (None, "")), None)
            if role and stated is not None:
                fields[role] = stated
        try:
            line = (_minimax if provider == "minimax" else _generic)(fields, zone)
        except ValueError as error:
            raise BadBill(f"line {number}: {error}") from None
        if line is not None:
            yield line


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and fields of each line, with names in lower case and `_` for blanks."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            start = text.read(1)
            text.seek(0)
            if start in ("{", "["):
                for number, line in enumerate(text, 1):
                    if line.strip():
                        yield from ((number, _named(r)) for r in _decoded(line, number))
                return
            rows = csv.DictReader(text, strict=True)
            for row in rows:
                if None in row:
                    raise BadBill(f"line {rows.line_num}: more fields than there are titles.")
                yield rows.line_num, _named(row)
    except UnicodeDecodeError:
        raise BadBill("it is not UTF-8.") from None
    except csv.Error as error:
        raise BadBill(f"line {rows.line_num}: {error}.") from None
    except OSError as error:
        raise BadBill(f"{error.strerror}.") from None


def _decoded(line: str, number: int) -> list[dict[str, Any]]:
    """The records of one line of JSON: itself, or those of a page."""
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BadBill(f"line {number}: {error}.") from None
    page = value.get("charge_records", value) if isinstance(value, dict) else value
    records = page if isinstance(page, list) else [page]
    if not all(isinstance(r, dict) for r in records):
        raise BadBill(f"line {number}: an object was expected.")
    return records


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"[\s-]+", "_", name.strip().lower()): v for name, v in record.items()}


def _generic(fields: Mapping[str, object], zone: tzinfo) -> Line:
    figures = _figures(fields, ("requests", "input", "cached", "cache_write", "output"))
    if "uncached" in fields:
        if "input" in fields:
            raise ValueError("it has `input` and `uncached_input`; one of them is enough.")
        uncached = _whole(fields["uncached"], "uncached")
        figures["input"] = uncached + figures.get("cached", 0) + figures.get("cache_write", 0)
    return _line(fields, figures, zone)


def _minimax(fields: Mapping[str, object], zone: tzinfo) -> Line | None:
    """None for what is no use of a model: a purchase, or a call that failed."""
    method = str(fields.get("method", "")).lower()
    if str(fields.get("status", "success")).lower() != "success" or method.endswith("_purchase"):
        return None
    figures = _figures(fields, ("input", "output"))
    figures["cached"] = figures.get("input", 0) if method.startswith("cache-read") else 0
    figures["cache_write"] = figures.get("input", 0) if method.startswith("cache-create") else 0
    return _line(fields, figures, zone)


def _line(fields: Mapping[str, object], figures: dict[Figure, int], zone: tzinfo) -> Line:
    for needed in _NEEDED:
        if needed not in fields:
            raise ValueError(f"it does not say {'which model' if needed == 'model' else needed}.")
    if "cost" in fields:
        nano = _decimal(fields["cost"], "cost") * 10**9
        figures["cost_nano"] = int(nano.to_integral_value())
    return Line(_day(fields["when"], zone), str(fields["model"]).strip(), figures)


def _figures(fields: Mapping[str, object], names: Iterable[Figure]) -> dict[Figure, int]:
    return {name: _whole(fields[name], name) for name in names if name in fields}


def _whole(value: object, name: str) -> int:
    number = _decimal(value, name)
    if number < 0 or number != number.to_integral_value():
        raise ValueError(f"{name} is `{str(value)[:32]}`; a whole number was expected.")
    return int(number)


def _decimal(value: object, name: str) -> Decimal:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(f"{name} is `{str(value)[:32]}`; a number was expected.") from None
    if isinstance(value, bool) or not number.is_finite() or abs(number) > MAX_FIGURE:
        raise ValueError(f"{name} is `{str(value)[:32]}`; a number was expected.")
    return number


def _day(value: object, zone: tzinfo) -> date:
    """The day, in `zone`, of a day, a time (of `zone` if it names none) or Unix seconds."""
    text = str(value).strip()
    try:
        if found := _DAY.fullmatch(text):
            return date(*map(int, found.groups()))
        if re.fullmatch(r"\d{9,13}(\.\d+)?", text):
            seconds = float(text)
            seconds = seconds / 1000 if seconds > _MILLISECONDS else seconds
            return datetime.fromtimestamp(seconds, zone).date()
        hours = _HOURS.fullmatch(text)
        moment = datetime.fromisoformat(hours[1] if hours else text.removesuffix(" UTC"))
        if text.endswith(" UTC"):
            moment = moment.replace(tzinfo=periods.zone_of("UTC"))
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"`{text[:32]}` is no day or time; write 2026-11-25 or 2026-11-25T13:00:00Z."
        ) from None
    return moment.date() if moment.tzinfo is None else moment.astimezone(zone).date()
