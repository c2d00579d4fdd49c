"""Taking a feed's batches one by one, with an eye on the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from data_collector.feeds.port import FeedBatch


async def next_or_stop(batches: AsyncIterator[FeedBatch], stop: asyncio.Event) -> FeedBatch | None:
    """Return the next batch, None at the end of the feed or when `stop` comes first."""
    if stop.is_set():
        return None
    following = asyncio.ensure_future(anext(batches, None))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return following.result() if following.done() else None
    finally:
        for task in (following, stopped):
            if not task.done():
                task.cancel()
        await asyncio.gather(following, stopped, return_exceptions=True)


async def close_batches(batches: AsyncIterator[FeedBatch]) -> None:
    """Let a feed end in its own way, where it has one."""
    close = getattr(batches, "aclose", None)
    if close is not None:
        await close()
