"""What the router costs, and what it keeps: overhead beside the same app without it, throughput, ten kills.

python -m benchmarks.router --threads 1
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import describe_run, rounded, say, store, table
from benchmarks.router_client import Connection, Server, killed, one_input, running, throughput, time_requests
from benchmarks.router_server import LIVE, blocks_for
from corank.rollout import Store
from corank.rollout.receipts import read_receipt
from corank.rollout.splits import falls_under

GOAL = 0.05
CONNECTIONS = (1, 8, 64)
BATCH = 25  # requests before the other server's turn


def overhead(folder: Path, rounds: int, blocks: int, app: str) -> dict[str, object]:
    """Time the two apps in turns over one connection each; the ratio of their medians, round by round."""
    body = one_input()
    with (
        running("plain", "slow", folder, blocks=blocks) as plain,
        running(app, "slow", folder, blocks=blocks) as other,
    ):
        links = {"plain": Connection(plain.port), app: Connection(other.port)}
        for link in links.values():
            time_requests(link, BATCH, body)
        times: dict[str, list[list[float]]] = {name: [] for name in links}
        for number in range(rounds):
            order = list(links) if number % 2 == 0 else list(links)[::-1]
            for name in order:
                times[name].append(time_requests(links[name], BATCH, body))
    medians = {name: np.median(np.array(each), axis=1) for name, each in times.items()}
    ratios = medians[app] / medians["plain"] - 1
    draw = np.random.default_rng(0)
    resampled = np.median(draw.choice(ratios, (5000, rounds)), axis=1)
    return {
        "p50_ms": {name: float(np.median(np.array(each))) for name, each in times.items()},
        "overhead": float(np.median(ratios)),
        "ci": [float(one) for one in np.quantile(resampled, [0.025, 0.975])],
        "medians_ms": {name: each.tolist() for name, each in medians.items()},
    }


def kept(folder: Path, requests: int, kills: int) -> dict[str, object]:
    """Kill a server under load, then count what its store holds."""
    server = Server("router", "fast", folder, threads=2)
    try:
        found = killed(server, folder, requests, kills)
    finally:
        server.stop()
    store_ = Store(folder / "router.db", must_exist=True)
    for _ in range(requests // 1000 + 2):
        store_.fold(LIVE, time.time() + 60)
    terms = store_.terms()
    receipts = [read_receipt(text, terms.secret, store_.name) for text in found.pop("receipts").values()]
    arms = [
        "challenger" if falls_under(terms.salt, f"user-{one.request[2:]}", 0.5) else "champion"
        for one in receipts
    ]
    with store_.database.reading() as connection:
        ask = connection.exec_driver_sql
        found["rows"] = ask("SELECT count(*) FROM corank_outcomes").scalar_one()
        found["requests"] = ask("SELECT count(DISTINCT request) FROM corank_outcomes").scalar_one()
    found["counted"] = store_.state().outcomes
    found["same_split"] = sum(one.arm == arm for one, arm in zip(receipts, arms, strict=True))
    store_.close()
    return found


def main() -> None:
    """Measure everything and store the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch, in this process; the servers have one"
    )
    parser.add_argument("--ms", type=float, default=14.0, help="about what the model takes")
    parser.add_argument("--quick", action="store_true", help="small, and nothing is stored")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, requests, total, kills = (4, 60, 400, 3) if options.quick else (60, 2000, 50_000, 10)
    blocks = blocks_for(options.ms)
    data: dict[str, object] = {"blocks": blocks, "throughput": {}}
    with tempfile.TemporaryDirectory() as name:
        for app in ("router", "shadow"):
            say(f"overhead: {app}")
            data[app] = overhead(Path(name), rounds, blocks, app)
        for model in ("fast", "slow"):
            for app in ("plain", "router"):
                folder = Path(name) / model  # a store of its own: another model would count as drift
                folder.mkdir(exist_ok=True)
                with running(app, model, folder, blocks=blocks, threads=2) as server:
                    for many in CONNECTIONS:
                        say(f"throughput: {app}, {model}, {many} connections")
                        count = requests if model == "fast" else max(requests // 4, many)
                        throughput(server, many, many)
                        data["throughput"][f"{app} {model} {many}"] = throughput(server, many, count)
    with tempfile.TemporaryDirectory() as name:
        say("kills")
        data["kills"] = kept(Path(name), total, kills)
    text = page(data, total)
    if options.quick:
        say(text)
    else:
        store("router", "What the router costs, and what it keeps", text, rounded(data), describe_run(0))


def page(data: dict, total: int) -> str:
    """Write the page."""
    live, shadow, kills = data["router"], data["shadow"], data["kills"]
    rows = []
    for model in ("fast", "slow"):
        for many in CONNECTIONS:
            pair = [data["throughput"][f"{app} {model} {many}"] for app in ("plain", "router")]
            cells = [f"{one['per_second']:.0f} ({one['p50_ms']:.1f}, {one['p95_ms']:.1f})" for one in pair]
            rows.append([model, many, *cells])
    fine = live["ci"][1] <= GOAL
    whole = all(
        kills[name] == total for name in ("acknowledged", "rows", "requests", "counted", "same_split")
    )
    return "\n".join(
        [
            "Client and servers on one machine, over loopback, inputs of 3×64×64 in npy; the model runs in "
            f"one thread, and the slow one has {data['blocks']} equal blocks in every server. The app "
            "without the router is the same app, with a function in its place.\n",
            f"- **Overhead** at 50% live, p50 of {live['p50_ms']['plain']:.2f} ms without the router and "
            f"{live['p50_ms']['router']:.2f} ms with it, in turns: {live['overhead']:+.1%} (95%: "
            f"{live['ci'][0]:+.1%} – {live['ci'][1]:+.1%}); goal at most {GOAL:.0%}: "
            f"{'reached' if fine else '**missed**'}.",
            f"- In shadow the challenger runs as well, on the same cores: {shadow['overhead']:+.1%} "
            f"({shadow['ci'][0]:+.1%} – {shadow['ci'][1]:+.1%}); lower `shadow_share`, or give it cores.",
            f"- **{total:,} requests, {kills['killed']} kills** by SIGKILL over eight connections, in "
            f"{kills['seconds']:.0f} s: {kills['acknowledged']:,} outcomes acknowledged ("
            f"{kills['acknowledged_again']:,} of them had been written before their reply was lost), "
            f"{kills['rows']:,} rows, {kills['requests']:,} different requests, "
            f"{kills['counted']:,} counted, {kills['same_split']:,} split as before: "
            f"{'none lost, none twice' if whole else '**missed**'}.",
            "\n## Throughput\n",
            table(
                ["model", "connections", "without: a second (p50, p95 ms)", "router: a second (p50, p95 ms)"],
                rows,
            ),
        ]
    )


if __name__ == "__main__":
    main()
