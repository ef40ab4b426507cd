"""Clients that cost little beside what they measure: requests at a fixed pace, a thousand streams, one large body."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

CONNECTIONS = 32
BOUNDARY = "of-the-benchmark"


@dataclass(frozen=True)
class Paced:
    """How requests at a fixed pace were answered."""

    sent: int
    failed: int
    latencies_s: list[float]

    @property
    def p99_ms(self) -> float:
        """Of a hundred requests all but one were answered in this time, waiting for a free connection included."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[int(0.99 * (len(ordered) - 1))]

    @property
    def median_ms(self) -> float:
        """Half of them were answered in this time."""
        return 1000 * sorted(self.latencies_s)[len(self.latencies_s) // 2]


async def ask_paced(port: int, path: str, key: str, per_second: int, seconds: float) -> Paced:
    """Asks at a fixed pace, whether the answers come or not; a request's time begins when it was due."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nX-API-Key: {key}\r\n\r\n".encode()
    due: asyncio.Queue[float | None] = asyncio.Queue()
    latencies: list[float] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (moment := await due.get()) is not None:
            writer.write(request)
            status = await _read_answer(reader)
            latencies.append(time.perf_counter() - moment)
            failed += status != 200
        writer.close()

    workers = [asyncio.create_task(work()) for _ in range(CONNECTIONS)]
    began, count = time.perf_counter(), int(per_second * seconds)
    for number in range(count):
        moment = began + number / per_second
        if (ahead := moment - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        due.put_nowait(moment)
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    return Paced(count, failed, latencies)


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[9:12])


async def follow_streams(
    port: int, path: str, key: str, clients: int, until: int, all_there: asyncio.Event
) -> list[int]:
    """Opens streams and reads them until an event's number; answers with how many each was told, in order, once."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nX-API-Key: {key}\r\n\r\n".encode()
    connected = 0

    async def follow() -> int:
        nonlocal connected
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.readuntil(b"event: connection")
        connected += 1
        if connected == clients:
            all_there.set()
        expected, told = None, 0
        while True:
            line = await reader.readuntil(b"\n")
            if not line.startswith(b"id: "):
                continue
            number = int(line.rpartition(b":")[2])
            assert expected in (None, number), f"{number} came in the place of {expected}"
            expected, told = number + 1, told + 1
            if number == until:
                writer.close()
                return told

    tasks = []
    for _ in range(clients):
        tasks.append(asyncio.create_task(follow()))
        if len(tasks) % 50 == 0:
            await asyncio.sleep(0.05)
    return list(await asyncio.gather(*tasks))


async def upload(port: int, key: str, name: str, files: int, file_bytes: int) -> int:
    """Sends several files in one request, as they come; answers with the status."""
    parts = [_part(f'name="files"; filename="{name}-{number}.csv"') for number in range(files)]
    begin, end = _part('name="target_path"') + b".\r\n", f"--{BOUNDARY}--\r\n".encode()
    length = len(begin) + sum(len(part) + file_bytes + 2 for part in parts) + len(end)
    head = (
        f"POST /api/datasets/upload HTTP/1.1\r\nHost: localhost:{port}\r\nX-API-Key: {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + begin)
    block = bytes(1 << 20)
    for part in parts:
        writer.write(part)
        for _ in range(file_bytes // len(block)):
            writer.write(block)
            await writer.drain()
        writer.write(b"\r\n")
    writer.write(end)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(answer[9:12])


def _part(about: str) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode()
