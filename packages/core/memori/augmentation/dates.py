"""When something happened, read from words such as "last Saturday" and the time at which they were said.

Weekdays and bare dates without a year look back from that time, unless they are asked to look ahead. Vague times
("a few years ago", "the other day") are none: a wrong date is worse than no date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["When", "is_time", "when"]

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
# The month each season begins in, northern hemisphere.
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}
_NUMBERS = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=1
    )
} | {"a": 1, "an": 1, "a couple of": 2}

_DAY = "|".join(_DAYS) + "|mon|tues?|weds?|thur?s?|fri"
_MONTH = "|".join(_MONTHS) + "|" + "|".join(name[:3] for name in _MONTHS if name != "may") + "|sept"
_COUNT = r"\d{1,3}|a couple of|an?|" + "|".join(_NUMBERS.keys() - {"a", "an", "a couple of"})
_UNIT = "day|week|month|year"
_PART = r"(?: (?:morning|afternoon|evening|night))?"

_PATTERN = re.compile(
    r"(?<![\w'-])(?:"
    r"(?:on |since |until )?(?P<iso>\d{4}-\d{2}-\d{2})"
    rf"|(?P<today>today|tonight|this (?:morning|afternoon|evening))"
    r"|(?P<before_yesterday>(?:on )?the day before yesterday)"
    rf"|(?P<yesterday>(?:since )?yesterday{_PART}|last night)"
    rf"|(?P<tomorrow>tomorrow{_PART})"
    r"|(?P<ago>(?:(?:about|around|almost|over|nearly|roughly|exactly) )?"
    rf"(?P<ago_count>{_COUNT}) (?P<ago_unit>{_UNIT})s? ago)"
    r"|(?P<span>for (?:about |over |almost |nearly |the (?:last|past) )?"
    rf"(?P<span_count>{_COUNT}) (?P<span_unit>{_UNIT})s?)"
    rf"|(?P<weekday>(?:(?P<which_day>last|this past|this coming|this|next|on|since) )(?P<day>{_DAY})){_PART}"
    r"|(?P<period>(?P<which_period>last|this past|this|next) "
    rf"(?P<period_name>week|weekend|month|year|spring|summer|autumn|fall|winter|{_MONTH}))"
    rf"|(?:on |since |until )?(?:the )?(?P<day_first>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month_second>{_MONTH})\b"
    r"(?:,? (?P<year_a>(?:19|20)\d\d))?"
    rf"|(?:on |since |until )?(?P<month_first>{_MONTH})\.? (?P<day_second>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)"
    r"(?:,? (?P<year_b>(?:19|20)\d\d))?"
    rf"|(?:back in|in|since|until) (?P<month_alone>{_MONTH})\b(?:,? (?:of )?(?P<year_c>(?:19|20)\d\d))?"
    r"|(?:back in|in|since|until) (?P<year>(?:19|20)\d\d)"
    r")(?![\w'-])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class When:
    """A time that was named.

    Attributes:
        start: Its first instant; the moment of speaking for "today".
        phrase: The same time in words that stay true: ``on 14 November 2026``, ``in October 2026``, ``since 2020``.
        span: Where the words stood.
        since: Whether it is the beginning of something that goes on.
    """

    start: datetime
    phrase: str
    span: tuple[int, int]
    since: bool = False

    @property
    def since_phrase(self) -> str:
        """The same as the beginning of something: ``since October 2026``."""
        return f"since {self.phrase.partition(' ')[2]}"


def when(text: str, at: datetime, *, ahead: bool = False) -> When | None:
    """Return the first time that *text*, said at *at*, names; None when it names none, or none that exists.

    Args:
        ahead: Whether a weekday or a date without a year is the next one instead of the last one.
    """
    found = _PATTERN.search(text)
    if found is None:
        return None
    words = found.group().casefold()
    since = words.startswith(("since ", "for "))
    try:
        start, precision = _resolved(found, at, ahead=ahead)
    except (ValueError, OverflowError):
        return None
    return When(start, _phrase(start, precision, since=since), found.span(), since)


def is_time(text: str) -> bool:
    """Return whether *text* is nothing but a time."""
    return _PATTERN.fullmatch(text) is not None


def _resolved(found: re.Match[str], at: datetime, *, ahead: bool) -> tuple[datetime, str]:
    part = {name: value.casefold() for name, value in found.groupdict().items() if value is not None}
    today = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if "today" in part:
        return at, "day"
    if "yesterday" in part or "before_yesterday" in part:
        return today - timedelta(days=1 if "yesterday" in part else 2), "day"
    if "tomorrow" in part:
        return today + timedelta(days=1), "day"
    if "iso" in part:
        return datetime.fromisoformat(part["iso"]).replace(tzinfo=at.tzinfo), "day"
    if "ago" in part:
        return _back(today, part["ago_count"], part["ago_unit"])
    if "span" in part:
        return _back(today, part["span_count"], part["span_unit"])
    if "weekday" in part:
        return _weekday(today, part["which_day"], _weekday_number(part["day"]), ahead=ahead), "day"
    if "period" in part:
        return _period(today, part["which_period"], part["period_name"])
    if "year" in part:
        return today.replace(year=int(part["year"]), month=1, day=1), "year"
    if "month_alone" in part:
        return _dated(today, _month(part["month_alone"]), 1, part.get("year_c"), ahead=ahead), "month"
    day = int(part.get("day_first") or part["day_second"])
    month = _month(part.get("month_second") or part["month_first"])
    return _dated(today, month, day, part.get("year_a") or part.get("year_b"), ahead=ahead), "day"


def _back(today: datetime, count: str, unit: str) -> tuple[datetime, str]:
    number = int(count) if count.isdecimal() else _NUMBERS[count]
    if unit == "day":
        return today - timedelta(days=number), "day"
    if unit == "week":
        return today - timedelta(weeks=number), "week"
    # The 29th to the 31st are not in every month.
    day = min(today.day, 28)
    if unit == "month":
        months = today.year * 12 + today.month - 1 - number
        return today.replace(year=months // 12, month=months % 12 + 1, day=day), "month"
    return today.replace(year=today.year - number, day=day), "year"


def _weekday(today: datetime, which: str, day: int, *, ahead: bool) -> datetime:
    if which in ("next", "this coming") or (ahead and which in ("on", "this")):
        return today + timedelta(days=(day - today.weekday() - 1) % 7 + 1)
    return today - timedelta(days=(today.weekday() - day - 1) % 7 + 1)


def _period(today: datetime, which: str, name: str) -> tuple[datetime, str]:
    step = {"last": -1, "this past": -1, "this": 0, "next": 1}[which]
    if name in ("week", "weekend"):
        monday = today - timedelta(days=today.weekday())
        if name == "week":
            return monday + timedelta(weeks=step), "week"
        saturday = monday + timedelta(days=5)
        return saturday + timedelta(weeks=step), "weekend"
    if name == "month":
        months = today.year * 12 + today.month - 1 + step
        return today.replace(year=months // 12, month=months % 12 + 1, day=1), "month"
    if name == "year":
        return today.replace(year=today.year + step, month=1, day=1), "year"
    month = _SEASONS.get(name) or _month(name)
    start = today.replace(month=month, day=1)
    if step < 0 and start >= today.replace(day=1):
        start = start.replace(year=start.year - 1)
    if step > 0 and start <= today:
        start = start.replace(year=start.year + 1)
    return start, name if name in _SEASONS else "month"


def _dated(today: datetime, month: int, day: int, year: str | None, *, ahead: bool) -> datetime:
    if year is not None:
        return today.replace(year=int(year), month=month, day=day)
    # 29 February without a year is not in every year: the nearest four hold one.
    for distance in range(9):
        try:
            start = today.replace(year=today.year + (distance if ahead else -distance), month=month, day=day)
        except ValueError:
            continue
        if (start >= today) if ahead else (start <= today):
            return start
    raise ValueError(f"no {day=} in {month=}")


def _weekday_number(name: str) -> int:
    return next(number for number, day in enumerate(_DAYS) if day.startswith(name[:3]))


def _month(name: str) -> int:
    return next(number for number, month in enumerate(_MONTHS, start=1) if month.startswith(name[:3]))


def _phrase(start: datetime, precision: str, *, since: bool) -> str:
    month = _MONTHS[start.month - 1].capitalize()
    if precision == "year":
        words, lead = f"{start.year}", "in"
    elif precision == "month":
        words, lead = f"{month} {start.year}", "in"
    elif precision in _SEASONS:
        words, lead = f"{precision} {start.year}", "in"
    elif precision == "day":
        words, lead = f"{start.day} {month} {start.year}", "on"
    else:
        words, lead = f"the {precision} of {start.day} {month} {start.year}", "on" if precision == "weekend" else "in"
    return f"{'since' if since else lead} {words}"
