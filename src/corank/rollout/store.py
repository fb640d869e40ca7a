"""What a roll-out remembers: rows in a database that processes share, folded by one of them at a time."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import StoreError
from corank.extras import import_extra
from corank.rollout.database import Database
from corank.rollout.folding import fold
from corank.rollout.moves import Move, decide, order
from corank.rollout.policy import Policy
from corank.rollout.records import (
    Recorded,
    View,
    labels_from_json,
    labels_to_json,
    observation_from_json,
    observation_to_json,
)
from corank.rollout.rows import Labels, Observation, Outcome
from corank.rollout.schema import MOVES, OBSERVATIONS, OUTCOMES, ROLLOUTS, SCHEMA, SHADOWS
from corank.rollout.state import State

if TYPE_CHECKING:
    import sqlalchemy as sa
else:
    sa = import_extra("sqlalchemy", "rollout")

_MOST = 2000  # rows in one fold
_PAIR_WAIT = 60.0  # seconds that an outcome waits for the answer that is given beside it, from a queue
_PURGE = 3600.0  # seconds between two times that answers without outcomes are deleted
_KEPT = 30 * 86400.0  # seconds that such an answer waits for its outcome


@dataclass(frozen=True, slots=True)
class Terms:
    """What never changes in a roll-out: its policy, the salt of its split, the secret of its receipts."""

    policy: Policy
    salt: str
    secret: str
    champion: str
    challenger: str


class Store:
    """One roll-out in a database.

    Args:
        url: a SQLite file, or a URL of SQLAlchemy.
        name: of the roll-out; a database may hold many.
        must_exist: refuse a SQLite file that is not there, rather than make one.
    Raises: StoreError, when the database cannot be used.
    """

    def __init__(self, url: str | Path, name: str = "rollout", *, must_exist: bool = False) -> None:
        if not name or len(name) > 200:
            raise StoreError(f"rollout: a name has 1 to 200 characters, got {len(name)}.")
        self.name = name
        self._purged = -_PURGE
        self.database = Database(url, must_exist=must_exist)

    def open(self, policy: Policy, now: float, champion: str = "", challenger: str = "") -> Terms:
        """Begin the roll-out, or go on with it.

        Args:
            policy: must be what it began with, if it has begun.
            now: seconds since the epoch.
            champion: the digest of the bundle; it must be what the roll-out began with.
            challenger: likewise.
        Raises: StoreError, for another policy or other bundles than it began with.
        """
        self.database.make_tables()
        fresh = {
            "name": self.name,
            "schema": SCHEMA,
            "created": now,
            "policy": json.dumps(policy.to_dict()),
            "champion": champion,
            "challenger": challenger,
            "salt": secrets.token_hex(16),
            "secret": secrets.token_hex(32),
            "state": State(entered=now).to_json(),
            "version": 0,
        }
        with self.database.writing() as connection:
            connection.execute(self.database.insert(ROLLOUTS).values(fresh))
        terms = self.terms()
        _require_same(f"rollout {self.name!r}: policy", terms.policy.to_dict(), policy.to_dict())
        for arm, given in (("champion", champion), ("challenger", challenger)):
            _require_same(f"rollout {self.name!r}", {arm: getattr(terms, arm)}, {arm: given})
        return terms

    def terms(self) -> Terms:
        """Return what the roll-out began with.

        Raises: StoreError, when there is none of this name, or when it is of another schema.
        """
        with self.database.reading() as connection:
            if not sa.inspect(connection).has_table(ROLLOUTS.name):
                raise StoreError(f"store: {self.database.place} holds no roll-outs.")
            row = connection.execute(sa.select(ROLLOUTS).where(ROLLOUTS.c.name == self.name)).one_or_none()
            names = connection.execute(sa.select(ROLLOUTS.c.name).limit(20)).scalars().all()
        if row is None:
            raise StoreError(f"rollout: there is none named {self.name!r}; there are {', '.join(names)}.")
        if row.schema != SCHEMA:
            raise StoreError(f"store: this corank reads schema {SCHEMA}, got {row.schema}. Upgrade corank.")
        policy = Policy.from_dict(json.loads(row.policy))
        return Terms(policy, row.salt, row.secret, row.champion, row.challenger)

    def write(
        self,
        outcomes: Sequence[Recorded],
        observations: Sequence[Observation] = (),
        shadows: Sequence[tuple[str, Labels, float]] = (),
    ) -> set[str]:
        """Write rows in one transaction.

        Args:
            outcomes: each request counts once, whoever wrote it first.
            observations: for the next fold.
            shadows: (request, labels, when) of answers that were given beside.
        Returns: the requests whose outcomes are new.
        """
        new: set[str] = set()
        with self.database.writing() as connection:
            if shadows:
                rows = [
                    {
                        "rollout": self.name,
                        "request": request,
                        "labels": labels_to_json(labels),
                        "created": at,
                    }
                    for request, labels, at in shadows
                ]
                connection.execute(self.database.insert(SHADOWS), rows)
            if observations:
                rows = [{"rollout": self.name, "row": observation_to_json(one)} for one in observations]
                connection.execute(sa.insert(OBSERVATIONS), rows)
            if outcomes:
                # in one order everywhere, or two processes that repeat each other's requests could deadlock
                rows = [self._outcome_row(one) for one in sorted(outcomes, key=lambda one: one.request)]
                statement = self.database.insert(OUTCOMES).returning(OUTCOMES.c.request)
                new.update(connection.execute(statement, rows).scalars())
        return new

    def fold(self, policy: Policy, now: float) -> tuple[View, Move | None]:
        """Fold new rows into the state and do what follows; of several processes one at a time.

        Returns: where the roll-out is now, and the move, if there was one.
        """
        with self.database.writing() as connection:
            state, version = self._locked(connection)
            before = state.to_json()
            observations = self._observations(connection)
            outcomes = self._outcomes(connection, now)
            if observations or outcomes:
                rows = [observation_from_json(text) for _, text in observations]
                state = fold(state, policy, rows, [one for _, one in outcomes])
            state, move = decide(state, policy, now)
            if move is not None or state.to_json() != before:
                self._keep(connection, state, version, move, now)
            if observations:
                ids = [number for number, _ in observations]
                connection.execute(sa.delete(OBSERVATIONS).where(OBSERVATIONS.c.id.in_(ids)))
            if outcomes:
                ids = [number for number, _ in outcomes]
                connection.execute(sa.update(OUTCOMES).where(OUTCOMES.c.id.in_(ids)).values(folded=True))
                requests = [one.request for _, one in outcomes]
                connection.execute(
                    sa.delete(SHADOWS).where(SHADOWS.c.rollout == self.name, SHADOWS.c.request.in_(requests))
                )
            if now - self._purged >= _PURGE:
                connection.execute(sa.delete(SHADOWS).where(SHADOWS.c.created < now - _KEPT))
                self._purged = now
        return View.of(state, policy), move

    def order(self, policy: Policy, command: str, now: float) -> tuple[View, Move]:
        """Do what a person says: hold, resume, advance or roll-back.

        Raises: CorankError, for another word, or a roll-out that is over.
        """
        with self.database.writing() as connection:
            state, version = self._locked(connection)
            state, move = order(state, policy, command, now)
            self._keep(connection, state, version, move, now)
        return View.of(state, policy), move

    def state(self) -> State:
        """Return the state as it was last folded."""
        with self.database.reading() as connection:
            text = connection.execute(sa.select(ROLLOUTS.c.state).where(ROLLOUTS.c.name == self.name))
            return State.from_json(text.scalar_one())

    def moves(self) -> list[dict[str, Any]]:
        """Return every move so far, the first one first."""
        query = sa.select(MOVES).where(MOVES.c.rollout == self.name).order_by(MOVES.c.id)
        with self.database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [{key: row[key] for key in ("created", "action", "stage", "reason")} for row in rows]

    def close(self) -> None:
        """Let the connections go."""
        self.database.engine.dispose()

    def _outcome_row(self, one: Recorded) -> dict[str, Any]:
        return {
            "rollout": self.name,
            "request": one.request,
            "stage": one.stage,
            "arm": one.arm,
            "paired": one.paired,
            "predicted": labels_to_json(one.predicted),
            "truth": labels_to_json(one.truth),
            "score": one.score,
            "created": one.created,
            "folded": False,
        }

    def _locked(self, connection: sa.Connection) -> tuple[State, int]:
        query = sa.select(ROLLOUTS.c.state, ROLLOUTS.c.version).where(ROLLOUTS.c.name == self.name)
        row = connection.execute(query.with_for_update()).one_or_none()
        if row is None:
            raise StoreError(f"rollout: {self.name!r} is no longer in {self.database.place}.")
        return State.from_json(row.state), row.version

    def _observations(self, connection: sa.Connection) -> list[tuple[int, str]]:
        mine = sa.select(OBSERVATIONS.c.id, OBSERVATIONS.c.row).where(OBSERVATIONS.c.rollout == self.name)
        rows = connection.execute(mine.order_by(OBSERVATIONS.c.id).limit(_MOST)).all()
        return [(row.id, row.row) for row in rows]

    def _outcomes(self, connection: sa.Connection, now: float) -> list[tuple[int, Outcome]]:
        found_beside = sa.exists().where(
            SHADOWS.c.rollout == OUTCOMES.c.rollout, SHADOWS.c.request == OUTCOMES.c.request
        )
        ready = sa.or_(  # those that wait must not stand before the others
            sa.not_(OUTCOMES.c.paired), OUTCOMES.c.created <= now - _PAIR_WAIT, found_beside
        )
        mine = sa.select(OUTCOMES).where(OUTCOMES.c.rollout == self.name, sa.not_(OUTCOMES.c.folded), ready)
        rows = connection.execute(mine.order_by(OUTCOMES.c.id).limit(_MOST)).all()
        paired = [row.request for row in rows if row.paired]
        beside: dict[str, Labels | None] = {}
        if paired:
            query = sa.select(SHADOWS.c.request, SHADOWS.c.labels).where(
                SHADOWS.c.rollout == self.name, SHADOWS.c.request.in_(paired)
            )
            beside = {row.request: labels_from_json(row.labels) for row in connection.execute(query)}
        found = []
        for row in rows:
            recorded = Recorded(
                row.request,
                row.stage,
                row.arm,
                row.paired,
                labels_from_json(row.predicted),
                labels_from_json(row.truth),
                row.score,
                row.created,
            )
            found.append((row.id, recorded.scored(beside.get(row.request))))
        return found

    def _keep(
        self, connection: sa.Connection, state: State, version: int, move: Move | None, now: float
    ) -> None:
        kept = {"state": state.to_json(), "version": version + 1}
        connection.execute(sa.update(ROLLOUTS).where(ROLLOUTS.c.name == self.name).values(kept))
        if move is not None:
            values = {"action": move.action, "stage": move.stage, "reason": move.reason}
            connection.execute(sa.insert(MOVES).values(rollout=self.name, created=now, **values))


def _require_same(where: str, before: dict[str, Any], given: dict[str, Any]) -> None:
    for key, value in before.items():
        if given.get(key) != value:
            raise StoreError(
                f"{where}: it began with {key} {value!r}, got {given.get(key)!r}. "
                "Give the same, or begin a roll-out of another name."
            )
