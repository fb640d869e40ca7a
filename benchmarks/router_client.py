"""A bounded client on loopback: so many connections, each with one request at a time."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.router_server import SHAPE
from corank.serving.bodies import NPY, write_npy

HEADERS = {"content-type": NPY, "accept": NPY}


class Server:
    """A server of the benchmark; it can be killed, and started again at the same port."""

    def __init__(self, app: str, model: str, folder: Path, *, blocks: int = 1, threads: int = 1) -> None:
        self.words = [
            *(sys.executable, "-m", "benchmarks.router_server", "--app", app, "--model", model),
            *("--folder", str(folder), "--blocks", str(blocks), "--threads", str(threads)),
        ]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = [*self.words, "--port", str(self.port)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


@contextmanager
def running(*words: object, **options: object) -> Iterator[Server]:
    """Give a server, and stop it."""
    server = Server(*words, **options)
    try:
        yield server
    finally:
        server.stop()


class Connection:
    """One connection that is kept open, and opened again when the server was killed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Send one request and read the reply; a lost connection is an OSError."""
        try:
            self.http.request("POST", path, body, headers)
            reply = self.http.getresponse()
            return reply.status, reply.read(), {key.lower(): value for key, value in reply.getheaders()}
        except (OSError, http.client.HTTPException) as error:
            self.http.close()
            self.http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            raise OSError(str(error)) from error

    def until_answered(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        """Ask again until there is an answer."""
        while True:
            try:
                status, reply, head = self.ask(path, body, headers)
            except OSError:
                time.sleep(0.02)
                continue
            if status == 200:
                return reply, head
            if status not in (503, 504):
                raise RuntimeError(f"{path}: {status} {reply[:200]!r}")


def one_input(number: int = 0) -> bytes:
    """Return an input as npy."""
    values = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
    values.flat[0] = number
    return write_npy(values)


def time_requests(connection: Connection, count: int, body: bytes) -> list[float]:
    """Return the ms of each of so many requests, one after another, each of another key."""
    times = []
    connection.until_answered("/predict", body, HEADERS)  # the server may have let an idle connection go
    for number in range(count):
        headers = HEADERS | {"x-corank-key": f"user-{number}"}
        begun = time.perf_counter()
        status, _, _ = connection.ask("/predict", body, headers)
        times.append((time.perf_counter() - begun) * 1e3)
        if status != 200:
            raise RuntimeError(f"/predict: {status}")
    return times


def together(connections: int, work: Callable[[int], None]) -> float:
    """Do `work(number)` in so many threads at once; return the seconds until the last is done."""
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begun


def throughput(server: Server, connections: int, requests: int) -> dict[str, float]:
    """Return requests a second, and quantiles of their ms, over so many connections."""
    body, each = one_input(), max(1, requests // connections)
    times: list[list[float]] = [[] for _ in range(connections)]

    def work(number: int) -> None:
        times[number] = time_requests(Connection(server.port), each, body)

    seconds = together(connections, work)
    p50, p95 = np.quantile(np.concatenate(times), [0.5, 0.95])
    return {"per_second": each * connections / seconds, "p50_ms": float(p50), "p95_ms": float(p95)}


def killed(
    server: Server, folder: Path, requests: int, kills: int, connections: int = 8
) -> dict[str, object]:
    """Predict and record so many requests while the server is killed; return what was acknowledged.

    A kill comes each time that a further share of the outcomes is acknowledged.
    """
    arms: list[dict[str, str]] = [{} for _ in range(connections)]
    new = again = 0
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal new, again
        connection = Connection(server.port)
        for request in range(number, requests, connections):
            name = f"r-{request}"
            named = {"x-corank-key": f"user-{request}", "x-corank-request": name}
            _, head = connection.until_answered("/predict", one_input(request % 10), HEADERS | named)
            outcome = json.dumps({"receipt": head["x-corank-receipt"], "labels": [request % 10]}).encode()
            said, _ = connection.until_answered("/outcome", outcome, {"content-type": "application/json"})
            with lock:
                counted = json.loads(said)["new"]
                new, again = new + counted, again + (not counted)
            arms[number][name] = head["x-corank-receipt"]

    def kill() -> None:
        for one in range(kills):
            while new + again < (one + 1) * requests / (kills + 1):
                if over.wait(0.005):  # a worker failed, so the outcomes will never be that many
                    return
            codes.append(server.stop(signal.SIGKILL))
            server.start()

    codes: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        seconds = together(connections, work)
    finally:
        over.set()
        killer.join()
    receipts = {name: text for part in arms for name, text in part.items()}
    return {
        "seconds": seconds,
        "killed": codes.count(-9),
        "acknowledged": new + again,
        "acknowledged_as_new": new,
        "acknowledged_again": again,
        "receipts": receipts,
    }
