"""One connection to a Redis or Valkey server: a whole request out, the whole answer back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError, ResponseError

from shared.errors import BrokerError, ConfigError

CONNECT_TIMEOUT_SECONDS = 3.0


class ServerRefused(BrokerError):
    """The server answered, with an error: repeating the same request would not help."""

    retryable = False


def open_pool(redis_url: str) -> ConnectionPool:
    """Return a maker of connections; a URL that cannot be used is refused without repeating it (it holds a password)."""
    try:
        return ConnectionPool.from_url(
            redis_url,
            protocol=2,  # plain arrays in every answer, no push messages to interleave
            socket_timeout=None,  # each request brings its own limit: a blocking read must outlast its block
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            health_check_interval=0,
        )
    except (ValueError, TypeError, RedisError):
        raise ConfigError(
            "redis_url: not a usable URL (it is not shown, it may hold a password); "
            "use redis://[user:password@]host:port/db, rediss://... or unix:///path/to/socket"
        ) from None


def address_of(pool: ConnectionPool) -> str:
    """Return where a pool connects to, without user and password."""
    facts = pool.connection_kwargs
    if "path" in facts:
        return f"unix://{facts['path']}"
    return f"redis://{facts.get('host', 'localhost')}:{facts.get('port', 6379)}/{facts.get('db', 0)}"


def pack(*arguments: bytes) -> bytes:
    """Return one command in the Redis protocol."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts.extend(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)
    return b"".join(parts)


class Link:
    """A connection that opens itself when needed and serves one caller at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: AbstractConnection | None = None
        self._lock = asyncio.Lock()
        self.generation = 0
        """How often the connection was opened: a reader that sees it change asks for its own unacknowledged first."""

    async def open(self, timeout_seconds: float) -> int:
        """Make sure the connection stands and return its generation."""
        await self._within(self._open, timeout_seconds)
        return self.generation

    async def call(self, request: bytes, replies: int, timeout_seconds: float) -> list[Any]:
        """Send packed commands and return one reply for each; an error reply is returned, not raised."""

        async def exchange() -> list[Any]:
            connection = await self._open()
            await connection.send_packed_command([request], check_health=False)
            return [await self._reply(connection) for _ in range(replies)]

        return await self._within(exchange, timeout_seconds)

    async def _within[T](self, step: Callable[[], Awaitable[T]], timeout_seconds: float) -> T:
        async with self._lock:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await step()
            except TimeoutError:
                await self._drop()
                raise BrokerError(f"bus: no answer within {timeout_seconds:g} s") from None
            except (RedisError, OSError) as error:
                await self._drop()
                raise BrokerError(f"bus: {error}") from error
            except asyncio.CancelledError:  # answers still on the way would be taken for the next caller's
                await self._drop()
                raise

    async def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        async with self._lock:
            await self._drop()

    async def _open(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = self._connection
        if connection.is_connected and await connection.can_read():
            await connection.disconnect(nowait=True)  # closed by the server, or an answer nobody waits for
        if not connection.is_connected:
            await connection.connect()
            self.generation += 1
        return connection

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except (RedisError, OSError):
                return


def checked(replies: Sequence[Any], doing: str) -> list[Any]:
    """Return the replies, or raise what the server refused first."""
    refusals = [reply for reply in replies if isinstance(reply, ResponseError)]
    if refusals:
        share = f" ({len(refusals)} of {len(replies)})" if len(replies) > 1 else ""
        raise ServerRefused(f"bus: {doing} was refused{share}: {refusals[0]}") from refusals[0]
    return list(replies)
