"""How much each address may ask for: weight a minute, then 429, then 418."""

from __future__ import annotations

from dataclasses import dataclass

from paper_exchange.rest.errors import banned, too_much_weight

MINUTE_MS = 60_000
ADDRESSES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """The limits of one address; a client that ignores `ignored_max` answers of 429 within a minute is banned."""

    weight_max: int = 6000
    ignored_max: int = 10
    ban_seconds: int = 120
    ban_seconds_max: int = 3 * 86_400


@dataclass(slots=True)
class _Account:
    minute: int = -1
    used: int = 0
    refused: int = 0
    banned_until_ms: int = 0
    bans: int = 0


class WeightBudget:
    """Counts the weight of every address in calendar minutes of server time."""

    def __init__(self, rules: BudgetRules) -> None:
        self.rules = rules
        self._accounts: dict[str, _Account] = {}

    def used(self, address: str, now_ms: int) -> int:
        """Return what an address has used in the minute of `now_ms`."""
        return self._account(address, now_ms).used

    def charge(self, address: str, weight: int, now_ms: int) -> None:
        """Take `weight` from an address; raises 429 when the minute is used up and 418 when that is ignored."""
        account = self._account(address, now_ms)
        if now_ms < account.banned_until_ms:
            raise banned(account.banned_until_ms, _seconds(account.banned_until_ms - now_ms))
        account.used += weight
        if account.used <= self.rules.weight_max:
            return
        account.refused += 1
        if account.refused > self.rules.ignored_max:
            length = min(self.rules.ban_seconds * 2**account.bans, self.rules.ban_seconds_max)
            account.bans += 1
            account.banned_until_ms = now_ms + length * 1000
            raise banned(account.banned_until_ms, length)
        raise too_much_weight(self.rules.weight_max, _seconds(MINUTE_MS - now_ms % MINUTE_MS))

    def _account(self, address: str, now_ms: int) -> _Account:
        minute = now_ms // MINUTE_MS
        account = self._accounts.get(address)
        if account is None:
            if len(self._accounts) >= ADDRESSES_MAX:
                self._accounts.pop(next(iter(self._accounts)))
            account = self._accounts[address] = _Account()
        if account.minute != minute:
            account.minute, account.used, account.refused = minute, 0, 0
        return account


def _seconds(milliseconds: int) -> int:
    return -(-milliseconds // 1000)
