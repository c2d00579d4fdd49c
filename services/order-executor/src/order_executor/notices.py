"""What a person is told of effects: orders, refusals and changes of state; ignored signals tell nobody anything."""

from __future__ import annotations

from collections.abc import Sequence

from shared.domain.effects import REFUSED, Closed, Declined, Effect, Filled, Placed, StateChanged
from shared.notifier import TelegramNotifier


async def notify(notifier: TelegramNotifier, effects: Sequence[Effect]) -> None:
    """Queue the messages of `effects`; the notifier never waits and never raises."""
    for effect in effects:
        if isinstance(effect, Placed):
            if effect.signal is not None:
                await notifier.send_signal(effect.signal)
            await notifier.send_order(effect.order)
        elif isinstance(effect, Filled | Closed):
            await notifier.send_order(effect.order)
        elif isinstance(effect, Declined) and effect.outcome == REFUSED:
            await notifier.send_refusal(effect.signal, effect.reason, effect.detail)
        elif isinstance(effect, StateChanged):
            await notifier.send_error(
                f"{effect.state}: {effect.reason or 'resumed'}; {effect.detail}", "order-executor"
            )
