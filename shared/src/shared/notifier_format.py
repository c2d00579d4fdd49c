"""What messages to people look like: HTML as the Bot API reads it, split so that no part is refused."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from shared.models import Order, Signal

MESSAGE_LENGTH_MAX: Final = 4096
_ATOMS: Final = re.compile(r"</?[A-Za-z][^<>\n]{0,500}>|&#?\w{1,10};|\n|[^\S\n]+|[^<&\s]+|[<&]")
_TAG: Final = re.compile(r"<(?P<close>/?)(?P<name>[A-Za-z][\w-]*)[^<>]*>")
_TAG_DEPTH_MAX: Final = 8


def escape(text: object) -> str:
    """Return user text as HTML that shows it letter by letter."""
    return html.escape(str(text), quote=False)


def number(value: object) -> str:
    """Return a number without exponent, and without the zeros that storage pads it with."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return str(value)
    text = format(value, "f")
    whole, point, fraction = text.partition(".")
    return text if len(fraction) <= 8 else (whole + point + fraction.rstrip("0")).rstrip(".")


def _lines(title: str, rows: Iterable[tuple[str, object]]) -> str:
    body = [f"{label}: {escape(number(value))}" for label, value in rows if value not in (None, "")]
    return "\n".join([f"<b>{escape(title)}</b>", *body])


def signal_text(signal: Signal) -> str:
    """Return the message about a signal."""
    rows = [("Strategy", signal.strategy), ("Symbol", signal.symbol), ("Side", signal.side)]
    rows += [("Price", signal.price), ("Quantity", signal.quantity), ("Reason", signal.reason)]  # type: ignore[list-item]
    return _lines(f"Signal: {signal.side} {signal.symbol}", rows)


def order_text(order: Order) -> str:
    """Return the message about an order's new status."""
    rows = [("Status", order.status), ("Symbol", order.symbol), ("Side", order.side), ("Strategy", order.strategy)]
    rows += [("Price", order.price), ("Quantity", order.quantity)]  # type: ignore[list-item]
    rows += [("Filled at", order.avg_fill_price), ("Reason", order.reason)]  # type: ignore[list-item]
    return _lines(f"Order {order.status}: {order.side} {order.symbol}", rows)


def refusal_text(signal: Signal, reason: str, detail: str = "") -> str:
    """Return the message about a signal that our own rules refused."""
    rows = [("Strategy", signal.strategy), ("Price", signal.price), ("Quantity", signal.quantity)]
    rows += [("Refused", reason), ("Detail", detail)]
    return _lines(f"Refused: {signal.side} {signal.symbol}", rows)


def error_text(error: object, service: str) -> str:
    """Return the message about an error."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return f"<b>Error in {escape(service)}</b>\n{escape(text)}"


def summary_text(positions: object, total_value: object, daily_pnl: object) -> str:
    """Return the daily summary: total value, day PnL, number of open positions, and one line each."""
    held = [item for item in _items(positions) if _field(item, "quantity") not in (None, 0)]
    sign = "+" if isinstance(daily_pnl, Decimal | int | float) and daily_pnl > 0 else ""
    lines = [
        "<b>Daily summary</b>",
        f"Total value: {escape(number(total_value))}",
        f"Day PnL: {sign}{escape(number(daily_pnl))}",
        f"Open positions: {len(held)}",
    ]
    for item in held:
        entry, price = _field(item, "avg_entry_price"), _field(item, "current_price")
        quantity = escape(number(_field(item, "quantity")))
        line = f"{escape(_field(item, 'symbol'))}: {quantity} @ {escape(number(entry))}"
        lines.append(line if price is None else f"{line}, now {escape(number(price))}")
    return "\n".join(lines)


def _items(positions: object) -> list[Any]:
    if isinstance(positions, Mapping):
        return list(positions.values())
    return list(positions) if isinstance(positions, Iterable) else []


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def plain_text(message: str) -> str:
    """Return what an HTML message says, without its tags: sent when the markup was not understood."""
    return html.unescape(_TAG.sub("", message))


def units(text: str) -> int:
    """Return the length as the Bot API counts it: UTF-16 code units."""
    return len(text) + sum(ord(letter) > 0xFFFF for letter in text)


def split_message(message: str, parse_mode: str | None = "HTML", length_max: int = MESSAGE_LENGTH_MAX) -> list[str]:
    """Return the parts of a message, each at most `length_max` units long, cut at line borders where there are any.

    A line too long for one part is cut between words, a word too long between letters, a tag or an entity never.
    Tags that are open where a part ends are closed there and opened again in the next.
    """
    if units(message) <= length_max:
        return [message] if message.strip() else []
    splitter = _Splitter(length_max, markup=parse_mode == "HTML")
    for line in message.split("\n"):
        splitter.add_line(line)
    return splitter.finish()


class _Splitter:
    def __init__(self, length_max: int, *, markup: bool) -> None:
        self._length_max = length_max
        self._markup = markup
        self._parts: list[str] = []
        self._part = ""
        self._opened = ""  # what the part begins with: tags opened again
        self._open: list[tuple[str, str]] = []

    def add_line(self, line: str) -> None:
        mark = (self._part, list(self._open))
        joint = "\n" if self._part != self._opened else ""
        if self._fits(joint + line):
            for atom in self._atoms(joint + line):
                self._put(atom)
            if self._fits(""):
                return
            self._part, self._open = mark
        self._flush()
        for atom in self._atoms(line):
            self._add_atom(atom)

    def finish(self) -> list[str]:
        self._flush()
        return self._parts

    def _atoms(self, text: str) -> list[str]:
        return _ATOMS.findall(text) if self._markup else re.findall(r"\n|[^\S\n]+|\S+", text)

    def _closing(self) -> str:
        return "".join(f"</{name}>" for name, _ in reversed(self._open))

    def _fits(self, text: str) -> bool:
        return units(self._part) + units(text) + units(self._closing()) <= self._length_max

    def _put(self, atom: str) -> None:
        self._part += atom
        tag = _TAG.fullmatch(atom) if self._markup else None
        if tag is None:
            return
        name = tag["name"].lower()
        if not tag["close"]:
            self._open.append((name, atom))
        elif self._open and self._open[-1][0] == name:
            self._open.pop()
        # Beyond any sensible nesting it is rubbish; the plain-text fall-back will show it.
        self._open = self._open[:_TAG_DEPTH_MAX]

    def _add_atom(self, atom: str) -> None:
        tag = _TAG.fullmatch(atom) if self._markup else None
        name = tag["name"].lower() if tag is not None else ""
        opens = tag is not None and not tag["close"]
        room = f"</{name}>" if opens else ""
        # The end of the innermost open tag takes the room that was kept for it.
        kept = tag is not None and not opens and bool(self._open) and self._open[-1][0] == name
        if not kept and not self._fits(atom + room):
            self._flush()
        if tag is not None or self._fits(atom):
            self._put(atom)
            return
        for letter in atom:  # one word longer than a whole part
            if not self._fits(letter):
                self._flush()
            self._put(letter)

    def _flush(self) -> None:
        if self._part[len(self._opened) :].strip():
            self._parts.append(self._part.strip("\n") + self._closing())
        opened = "".join(atom for _, atom in self._open)
        if units(opened) + units(self._closing()) > self._length_max // 2:
            self._open, opened = [], ""
        self._part = self._opened = opened
