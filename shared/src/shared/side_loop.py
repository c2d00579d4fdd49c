"""An event loop in a thread of its own, for what must answer while the program's own loop is held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


class SideLoop:
    """Runs coroutines beside the loop of whoever waits for them; it may be started again after a stop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it ends with the process at the latest."""
        assert self._thread is None, "a side loop is started once"
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    async def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns there; what it raises is raised here."""
        assert self._loop is not None, "the side loop was not started"
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        """End the thread and wait for it."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
