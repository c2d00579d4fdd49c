"""How many examples a property test tries: all of them in `make test`, a fifth in `make check`."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings

QUICK: Final = "quick"
QUICK_SHARE: Final = 5
EXAMPLES: Final = 100  # what a test tries that names no number
EXAMPLES_MIN: Final = 10

# a machine that is busy with something else makes no test fail
settings.register_profile("patient", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(QUICK, settings.get_profile("patient"), max_examples=EXAMPLES // QUICK_SHARE)
settings.load_profile("patient")


def examples(count: int) -> int:
    """Return `count`, or a fifth of it (at least ten, at most `count`) under `--hypothesis-profile quick`."""
    if settings.get_current_profile_name() != QUICK:
        return count
    return min(count, max(EXAMPLES_MIN, count // QUICK_SHARE))
