"""What a real server can do to the bus: hang, lose an answer, stay away, change its mind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.broker import RedisBroker
from shared.embedded_bus import EmbeddedBus
from shared.errors import BrokerError

pytestmark = pytest.mark.integration

STREAM = "signals"
ENVELOPE = b'{"version":1}'


@asynccontextmanager
async def cutting_proxy(target: str, path: Path, cuts: int) -> AsyncIterator[str]:
    """A server in between that passes every request on and drops the answer to the first `cuts` XADDs."""
    left = cuts

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        behind_reader, behind_writer = await asyncio.open_unix_connection(target)
        while request := await reader.read(65536):
            behind_writer.write(request)
            answer = await behind_reader.read(65536)
            if b"XADD" in request and left > 0:
                left -= 1
                break
            writer.write(answer)
        behind_writer.close()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield f"unix://{path}"


@pytest.mark.parametrize(("cuts", "entries"), [(1, 2), (2, 2), (9, 2)])
async def test_a_write_whose_answer_is_lost_is_sent_twice_at_most(tmp_path: Path, cuts: int, entries: int) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        direct = RedisBroker(bus.url)
        async with cutting_proxy(bus.socket, Path(bus.socket).with_name("cut"), cuts) as url:
            broker = RedisBroker(url)
            if cuts == 1:
                assert await broker.publish(STREAM, ENVELOPE)
            else:
                with pytest.raises(BrokerError):
                    await broker.publish(STREAM, ENVELOPE)
            await broker.close()
        assert await direct.depth(STREAM) == entries
        await direct.close()


async def test_a_hung_server_is_an_error_after_its_time_and_is_used_again_when_it_wakes(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        assert bus.pid is not None
        broker = RedisBroker(bus.url, answer_timeout_seconds=0.1)
        await broker.publish(STREAM, ENVELOPE)
        os.kill(bus.pid, signal.SIGSTOP)
        assert not await broker.ping()
        with pytest.raises(BrokerError, match=r"no answer within 0\.1 s"):
            await broker.publish(STREAM, ENVELOPE)
        with pytest.raises(BrokerError, match="no answer within"):
            await broker.read_group("engine", "one", [STREAM], block_ms=10)
        os.kill(bus.pid, signal.SIGCONT)
        await until_publishing(broker)
        assert await broker.read_group("engine", "one", [STREAM])
        await broker.close()


async def test_a_server_that_stays_away_is_left_in_peace_between_tries(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        assert bus.pid is not None
        broker = RedisBroker(bus.url)
        os.kill(bus.pid, signal.SIGKILL)
        await bus.wait()
        reasons = [await refusal(broker) for _ in range(6)]
        assert "tried again after" in reasons[-1]
        assert "tried again after" not in reasons[0]
        supervisor = asyncio.create_task(bus.supervise())
        await until_publishing(broker)
        await broker.close()
    await supervisor


async def test_many_tasks_share_one_broker_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        broker = RedisBroker(bus.url)
        streams = [f"candles.S{number}_USDT.1m" for number in range(50)]

        async def work(stream: str) -> int:
            for _ in range(4):
                await broker.publish(stream, ENVELOPE)
            messages = await broker.read(stream)
            assert {message.stream for message in messages} == {stream}
            return len(messages)

        assert await asyncio.gather(*(work(stream) for stream in streams)) == [4] * 50
        await broker.close()


async def test_a_cancelled_question_does_not_leave_its_answer_to_the_next(tmp_path: Path) -> None:
    async with EmbeddedBus(tmp_path) as bus:
        broker = RedisBroker(bus.url)
        await broker.publish_many([(STREAM, ENVELOPE)] * 3)
        for _ in range(20):
            task = asyncio.create_task(broker.depth("another"))
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await broker.depth(STREAM) == 3
        await broker.close()


async def refusal(broker: RedisBroker) -> str:
    with pytest.raises(BrokerError) as refused:
        await broker.publish(STREAM, ENVELOPE)
    return str(refused.value)


async def until_publishing(broker: RedisBroker) -> None:
    while True:
        try:
            await broker.publish(STREAM, ENVELOPE)
        except BrokerError:
            await asyncio.sleep(0.005)
        else:
            return
