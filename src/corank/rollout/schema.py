"""The tables of a roll-out, for SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.extras import import_extra

if TYPE_CHECKING:
    import sqlalchemy as sa
else:
    sa = import_extra("sqlalchemy", "rollout")

SCHEMA = 1
_NAME = 200
METADATA = sa.MetaData()
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER counts up by itself there

ROLLOUTS = sa.Table(
    "corank_rollouts",
    METADATA,
    sa.Column("name", sa.String(_NAME), primary_key=True),
    sa.Column("schema", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("champion", sa.String(_NAME), nullable=False),  # digests of the bundles
    sa.Column("challenger", sa.String(_NAME), nullable=False),
    sa.Column("salt", sa.String(64), nullable=False),
    sa.Column("secret", sa.String(64), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)
OUTCOMES = sa.Table(
    "corank_outcomes",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("rollout", sa.String(_NAME), nullable=False),
    sa.Column("request", sa.String(_NAME), nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("arm", sa.String(16), nullable=False),
    sa.Column("paired", sa.Boolean, nullable=False),
    sa.Column("predicted", sa.Text),
    sa.Column("truth", sa.Text),
    sa.Column("score", sa.Float),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("folded", sa.Boolean, nullable=False),
    sa.UniqueConstraint("rollout", "request"),
    sa.Index(
        "corank_outcomes_new", "rollout", "id", sqlite_where=sa.text("NOT folded"),
        postgresql_where=sa.text("NOT folded"),
    ),
)  # fmt: skip
OBSERVATIONS = sa.Table(
    "corank_observations",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("rollout", sa.String(_NAME), nullable=False, index=True),
    sa.Column("row", sa.Text, nullable=False),
)
SHADOWS = sa.Table(
    "corank_shadows",
    METADATA,
    sa.Column("rollout", sa.String(_NAME), primary_key=True),
    sa.Column("request", sa.String(_NAME), primary_key=True),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)
MOVES = sa.Table(
    "corank_moves",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("rollout", sa.String(_NAME), nullable=False, index=True),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)
