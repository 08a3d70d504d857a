"""How numbers are written: proportions in per cent, differences in points, everything with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Entry = dict[str, Any]

SPACE = "\u00a0"  # between a number and its unit, so that no line breaks there
NOTHING = "–"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def at(entry: Any, *keys: Any) -> Any:
    """What stands under the keys of nested mappings; None where any of them is absent or null."""
    for key in keys:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def clipped(value: float) -> float:
    """A proportion, which the report holds unclipped, as one that can be."""
    return min(max(value, 0.0), 1.0)


def count(value: int | None) -> str:
    """A number of things, with a comma between thousands."""
    return NOTHING if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Three significant digits; powers of ten below 0.0001, all digits of whole thousands."""
    if value is None:
        return NOTHING
    if abs(value) >= 999.5:
        return minus(f"{value:,.0f}")
    digits, _, power = f"{value + 0.0:#.3g}".partition("e")
    return minus(digits.rstrip(".")) + (f" × 10{str(int(power)).translate(SUPERSCRIPT)}" if power else "")


def percent(value: float | None) -> str:
    """A proportion in per cent with one decimal, cut to what a proportion can be."""
    return NOTHING if value is None else f"{100 * clipped(value):.1f}{SPACE}%"


def points(value: float | None) -> str:
    """A difference of proportions in percentage points with one decimal."""
    return NOTHING if value is None else f"{minus(f'{100 * value:z.1f}')}{SPACE}points"


def p_value(value: float | None) -> str:
    """A p value; small ones as a bound."""
    return NOTHING if value is None else "p < 0.001" if value < 0.001 else f"p = {number(value)}"


def duration(seconds: float | None) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds is None:
        return NOTHING
    if seconds < 99.5:
        return f"{number(seconds)}{SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes}{SPACE}min" if minutes < 100 else f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def share(entry: Any, group: str, prefix: str = "") -> str:
    """The proportion of a group with its interval, from an entry with `proportion` and `ci95` by group."""
    return _share(at(entry, f"{prefix}proportion", group), at(entry, f"{prefix}ci95", group))


def share_estimate(estimate: Any) -> str:
    """A proportion with its interval, from an estimate."""
    return _share(at(estimate, "value"), at(estimate, "ci95"))


def estimate(entry: Any) -> str:
    """A number with its interval."""
    return _with_ends(at(entry, "value"), at(entry, "ci95"), number)


def difference(entry: Any) -> str:
    """A difference of proportions in points, with its interval."""
    ends = at(entry, "ci95")
    text = points(at(entry, "value"))
    return f"{text} ({_ends(ends, lambda x: minus(f'{100 * x:z.1f}'))})" if known(ends) and text != NOTHING else text


def known(ends: Sequence[float | None] | None) -> bool:
    """Whether an interval was measured."""
    return bool(ends) and None not in ends


def beyond(ends: Sequence[float | None] | None, target: float | None, margin: float) -> bool:
    """Whether an interval lies wholly outside the margin around the target."""
    return known(ends) and target is not None and (ends[0] > target + margin or ends[1] < target - margin)


def calibration(row: Entry) -> str:
    """Name of the images that a judge was measured on, with the strength of the noise."""
    strength, through = row.get("strength"), row.get("through")
    if strength is None:
        return row["images"]
    return f"{row['images']} ({f'{through}, ' if through else ''}strength {strength:g})"


def _share(value: float | None, ends: Sequence[float | None] | None) -> str:
    if value is None or not known(ends):
        return percent(value)
    return f"{percent(value)} ({_ends(ends, lambda x: f'{100 * clipped(x):z.1f}')})"


def _with_ends(value: float | None, ends: Sequence[float | None] | None, show: Any) -> str:
    return f"{show(value)} ({_ends(ends, show)})" if value is not None and known(ends) else show(value)


def _ends(ends: Sequence[float], show: Any) -> str:
    return f"{show(ends[0])} to {show(ends[1])}"


def minus(text: str) -> str:
    return text.replace("-", "−")
