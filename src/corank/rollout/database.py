"""A connection to SQLite or PostgreSQL whose transactions are what they say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import StoreError
from corank.extras import import_extra
from corank.rollout.schema import METADATA

if TYPE_CHECKING:
    import sqlalchemy as sa
else:
    sa = import_extra("sqlalchemy", "rollout")

_WAIT = 30  # seconds for another process's transaction
_LOCK = 0x636F72616E6B  # of PostgreSQL, while tables are made


class Database:
    """An engine with transactions to read and to write; each of its errors is a StoreError.

    Args:
        url: of SQLAlchemy, such as postgresql+psycopg://user@host/name, or the path of a SQLite file.
        must_exist: refuse a SQLite file that is not there.
    Raises: StoreError, for a URL that is none; ExtraError, for a driver that is missing.
    """

    def __init__(self, url: str | Path, *, must_exist: bool = False) -> None:
        text = str(url)
        if "://" not in text:
            text = f"sqlite:///{text}"
        try:
            parsed = sa.make_url(text)
        except sa.exc.ArgumentError as error:
            raise StoreError(f"store: {text!r} is no URL of a database, nor the path of a file.") from error
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.place = parsed.render_as_string(hide_password=True)
        self.dialect = parsed.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise StoreError(f"store: allowed are sqlite and postgresql, got {self.dialect!r}.")
        sqlite = self.dialect == "sqlite"
        if sqlite and parsed.database in (None, "", ":memory:"):
            raise StoreError("store: a roll-out must survive a restart. Give a file, such as rollout.db.")
        if must_exist and sqlite and not Path(str(parsed.database)).is_file():
            raise StoreError(
                f"store: {parsed.database}: there is no such file. Give the roll-out's database."
            )
        if not sqlite:
            import_extra("psycopg", "postgres")
        waits = {"timeout": _WAIT} if sqlite else {"connect_timeout": 10}
        self.engine = sa.create_engine(parsed, connect_args=waits, pool_pre_ping=not sqlite)
        if sqlite:
            sa.event.listen(self.engine, "connect", _set_up)
            sa.event.listen(self.engine, "begin", _begin)

    def make_tables(self) -> None:
        """Make the tables that are not there yet; several processes may do so at once."""
        with self.writing() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            METADATA.create_all(connection)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that may write; SQLite lets one in at a time."""
        with self._said(), self.engine.connect() as connection:
            connection = connection.execution_options(corank_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that only reads."""
        with self._said(), self.engine.begin() as connection:
            yield connection

    def insert(self, table: sa.Table) -> Any:
        """Return an INSERT that leaves rows alone which are there already."""
        module = import_extra(f"sqlalchemy.dialects.{self.dialect}", "rollout")
        return module.insert(table).on_conflict_do_nothing()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            said = str(cause).strip().partition("\n")[0][:200]
            raise StoreError(
                f"store: {self.place}: {type(cause).__name__}: {said}. Check that the database is up "
                "and that this user may write to it."
            ) from error


def _set_up(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come too late; ours is below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_WAIT * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("corank_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
