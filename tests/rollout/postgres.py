"""A PostgreSQL of our own in a temporary folder, from Debian's package; skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def _binaries():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@pytest.fixture(scope="session")
def postgres():
    """Return the URL of a fresh cluster that listens on a socket only."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'corank[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="corank-pg-"))
    who = {}
    if os.geteuid() == 0:  # the server refuses to be root
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def run(name, *words):
        done = subprocess.run(
            [binaries / name, *words], capture_output=True, text=True, cwd=folder, env={"LC_ALL": "C"}, **who
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    options = (
        f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=16MB"
    )
    run("initdb", "-D", data, "-U", "corank", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://corank@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Return the URL of a database, once of each kind."""
    return (
        f"sqlite:///{tmp_path}/rollout.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres")
    )
