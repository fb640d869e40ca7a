"""What a network must show before it goes on, as a policy: YAML, checked by pydantic."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corank.errors import CorankError, FileError
from corank.extras import import_extra

import_extra("pydantic", "decision")  # first, so that its absence is told of with the extra that brings it

from pydantic import BaseModel, ConfigDict, Field, ValidationError  # noqa: E402

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Stage(BaseModel):
    """A step of the roll-out: which share of the requests the network gets, and for how long at least."""

    model_config = _STRICT

    name: str = Field(min_length=1)
    share: float = Field(ge=0, le=1)
    hours: float = Field(default=0.0, ge=0)


STAGES = (
    Stage(name="shadow", share=0.0, hours=24),
    Stage(name="1%", share=0.01, hours=24),
    Stage(name="10%", share=0.1, hours=24),
    Stage(name="50%", share=0.5, hours=24),
    Stage(name="100%", share=1.0),
)


class Policy(BaseModel):
    """The terms of a decision; all fractions, never percent.

    Args:
        arm: the arm that is judged; None takes the one with force, else plain low rank.
        margin: what the deciding metric may lose. Where it is no share of samples: of the dense value.
        power: how often a trial with enough samples shows a network that loses nothing.
        minimum_samples: of final, whatever the power says.
        minimum_speedup: the whole interval must lie above it.
        engines: where the speed is judged; None takes every engine that was timed.
        worst_slice: what the worst class or slice may lose; None leaves it open.
        drift: what small may lose more than dense when the data shift; None leaves it open.
        require_drift: hold where drift was not measured.
        memory: the share of dense's peak memory that is allowed; None leaves it open.
        stages: of the roll-out, in order, with rising shares.

    >>> Policy(margin=0.01).margin, Policy().stages[1].share
    (0.01, 0.01)
    """

    model_config = _STRICT

    arm: str | None = None
    margin: float = Field(default=0.005, gt=0, lt=1)
    power: float = Field(default=0.8, ge=0.5, lt=1)
    minimum_samples: int = Field(default=200, ge=1)
    minimum_speedup: float = Field(default=1.1, gt=0)
    engines: tuple[str, ...] | None = None
    worst_slice: float | None = Field(default=0.05, gt=0, le=1)
    drift: float | None = Field(default=0.02, gt=0, le=1)
    require_drift: bool = False
    memory: float | None = Field(default=1.0, gt=0)
    stages: tuple[Stage, ...] = Field(default=STAGES, min_length=1)

    @classmethod
    def read(cls, path: Path | str) -> Policy:
        """Read a policy from YAML.

        Raises: FileError, when it is absent or no YAML; CorankError, for an unknown key, naming the nearest,
            or a value that is not allowed.
        """
        yaml: Any = import_extra("yaml", "decision")
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror}). Give a policy in YAML.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            told = " ".join(str(error).split())
            raise FileError(f"{path}: is no YAML ({told}).") from error
        return cls.from_dict({} if values is None else values, str(path))

    @classmethod
    def from_dict(cls, values: Any, where: str = "policy") -> Policy:
        """Make a policy of plain values.

        Raises: CorankError, as `read` does.

        >>> Policy.from_dict({"minimum_speedup": 1.5}).minimum_speedup
        1.5
        """
        if not isinstance(values, Mapping):
            raise CorankError(f"{where}: a policy is a table of keys, got a {type(values).__name__}.")
        try:
            policy = cls.model_validate_json(json.dumps(dict(values), default=str))
        except ValidationError as error:
            raise CorankError(f"{where}: {_told(error)}") from error
        names, shares = zip(*((one.name, one.share) for one in policy.stages), strict=True)
        if len(set(names)) < len(names) or list(shares) != sorted(set(shares)):
            raise CorankError(
                f"{where}: stages have names of their own and rising shares, got {', '.join(names)} with "
                f"{', '.join(f'{one:g}' for one in shares)}."
            )
        return policy


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        allowed = (Stage if len(first["loc"]) > 1 else Policy).model_fields
        key = str(first["loc"][-1])
        near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0)[0]
        return f"unknown key {place!r}; the nearest is {near!r}. Allowed: {', '.join(allowed)}."
    if first["type"] == "missing":
        return f"{place} is missing. Add it."
    allowed_text = first["msg"].replace("Input should be ", "")
    return f"{place}: allowed is {allowed_text}; got {first['input']!r}."
