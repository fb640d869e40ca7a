"""Routers in several processes that are killed again and again, by SIGKILL, under load: a program of its own.

Each worker answers its requests, records an outcome for each, and notes a request in a file once its outcome
is acknowledged. A killed worker is started again and repeats whatever it has no note of.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from corank.rollout import Policy, Router, Store
from corank.rollout.splits import falls_under

WORKERS = 3
POLICY = Policy(stages=(0.5, 1.0), requests=10**9, seconds=0, reference=20, paired_share=0.2, level=1e-9)


def model(x: int) -> np.ndarray:
    return np.eye(4)[[x % 4]]


def work(number: int, total: int, url: str, folder: Path) -> None:
    """Answer requests number, number + WORKERS, … and record each."""
    notes = folder / f"notes-{number}"
    done = set(notes.read_text().split()) if notes.exists() else set()
    open_file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(open_file, b"\n")  # what a kill may have left of a line ends here
    with Router(model, model, POLICY, url, name="killed", refresh=0.02) as router:

        def one(request: int) -> None:
            name = f"r-{request}"
            answer = router(request, key=f"user-{request}", request=name)
            router.record(answer.receipt, label=request % 4 if request % 5 else 9)
            os.write(open_file, f"{name}:{answer.arm}\n".encode())

        left = [n for n in range(number, total, WORKERS) if not any(f"r-{n}:{a}" in done for a in ARMS)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, left))


ARMS = ("champion", "challenger")


def start(number: int, total: int, url: str, folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(number, total, url, folder)
            os._exit(0)
        except BaseException as error:
            (folder / f"failed-{number}").write_text(repr(error))
            os._exit(1)
    return pid


def main(folder: Path, url: str, seed: int, kills: int, total: int) -> None:
    """Kill so many times, let them end, and print what is in the store beside what was acknowledged."""
    draw, signals = random.Random(seed), 0
    pids = [start(number, total, url, folder) for number in range(WORKERS)]
    for kill in range(kills):
        while len(noted(folder)) < (kill + 1) * total / (kills + 2):
            time.sleep(0.002)
        number = draw.randrange(WORKERS)
        os.kill(pids[number], signal.SIGKILL)
        signals += os.waitstatus_to_exitcode(os.waitpid(pids[number], 0)[1]) == -9
        pids[number] = start(number, total, url, folder)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    store = Store(url, "killed")
    for wait in (0.0, 10.0):  # the second one does not wait for answers beside that a kill took
        for _ in range(total // 1000 + 1):
            store.fold(POLICY, time.time() + wait)
    lines = noted(folder)
    salt, state = store.terms().salt, store.state()
    requests = [line.partition(":")[0] for line in lines]
    arms = dict(line.split(":") for line in lines if line.endswith(ARMS))
    right = [n for n in arms if (ARMS[falls_under(salt, f"user-{n[2:]}", 0.5)]) == arms[n]]
    quality = state.totals["quality"]
    result = {
        "killed": signals,
        "codes": codes,
        "failed": [path.read_text() for path in folder.glob("failed-*")],
        "acknowledged": len(set(requests)),
        "counted": state.outcomes,
        "rows": rows(store),
        "same split": len(right) == len(arms),
        "wrong": state.totals["quality"][0].count - quality[0].total,
        "own": quality[0].count + quality[1].count,
    }
    print(json.dumps(result))  # noqa: T201


def noted(folder: Path) -> list[str]:
    """Return every note so far."""
    return [line for path in folder.glob("notes-*") for line in path.read_text().split()]


def rows(store: Store) -> dict[str, int]:
    """Count what is in the table of outcomes, by plain SQL."""
    with store.database.reading() as connection:
        ask = connection.exec_driver_sql
        return {
            "all": ask("SELECT count(*) FROM corank_outcomes WHERE rollout = 'killed'").scalar_one(),
            "requests": ask(
                "SELECT count(DISTINCT request) FROM corank_outcomes WHERE rollout = 'killed'"
            ).scalar_one(),
            "left": ask(
                "SELECT count(*) FROM corank_outcomes WHERE rollout = 'killed' AND NOT folded"
            ).scalar_one(),
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
