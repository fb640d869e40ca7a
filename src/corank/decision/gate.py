"""Advance, hold or roll back: a policy held against what a trial wrote down, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from corank.decision.checks import CHECKS, Check
from corank.decision.policy import Policy, Stage
from corank.decision.results import candidate_arm, check_result, read_result, reference_arm
from corank.errors import CorankError, FileError
from corank.wording import mark, say

Verdict = Literal["advance", "hold", "roll back"]
VERDICTS: dict[Verdict, str] = {
    "advance": mark("Advance"),
    "hold": mark("Hold"),
    "roll back": mark("Roll back"),
}
EXIT_CODES: dict[Verdict, int] = {"advance": 0, "hold": 10, "roll back": 20}


@dataclass(frozen=True, slots=True)
class Decision:
    """What may happen next, and why.

    Args:
        verdict: advance, hold or roll back.
        arm: the network that was judged.
        checks: everything that was looked at.
        needs: final samples that the margin takes, where there are too few.
        stage: of the roll-out, that comes next: the same after hold, none after roll back.
        policy: what it was held against, as plain values.
    """

    verdict: Verdict
    arm: str
    checks: tuple[Check, ...]
    needs: int | None
    stage: Stage | None
    policy: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0 for advance, 10 for hold, 20 for roll back."""
        return EXIT_CODES[self.verdict]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why: what stands against it, or where nothing does, what speaks for it."""
        return tuple(one.reason for one in self.checks if one.outcome == self.verdict)

    @property
    def sentence(self) -> str:
        """The verdict with its reasons and the next stage, on one line."""
        verdict, reasons = say(VERDICTS[self.verdict]), say("; ").join(self.reasons)
        if self.needs:
            verdict = say(
                "{verdict}, needs {needed} final samples", verdict=verdict, needed=f"{self.needs:,}"
            )
        told = say("{verdict}: {reasons}.", verdict=verdict, reasons=reasons)
        if self.verdict == "advance" and self.stage is not None:
            told += say(" Next stage: {stage}.", stage=tell_stage(self.stage))
        return told

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for pilot.json."""
        return {
            "verdict": self.verdict,
            "arm": self.arm,
            "sentence": self.sentence,
            "reasons": list(self.reasons),
            "needs": self.needs,
            "stage": None if self.stage is None else self.stage.model_dump(),
            "checks": [
                asdict(one) | {"interval": None if one.interval is None else list(one.interval)}
                for one in self.checks
            ],
            "policy": dict(self.policy),
        }

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.arm}", *(f"{one.outcome}: {one.reason}" for one in self.checks)]
        if self.needs:
            lines.append(f"needs {self.needs:,} final samples")
        if self.verdict == "advance" and self.stage is not None:
            lines.append(f"next stage: {tell_stage(self.stage)}")
        return "\n".join(lines)


def gate(
    result: Mapping[str, Any] | Path | str,
    policy: Policy | Mapping[str, Any] | Path | str | None = None,
    *,
    stage: str | None = None,
) -> Decision:
    """Decide whether the small network of a trial goes on.

    Roll back needs proof of harm, advance proof of its absence in accuracy, speed and drift; everything else
    is hold. Slices, seeds and memory advance by what was measured: few samples of a class prove nothing.

    Args:
        result: a pilot.json, or what it holds.
        policy: a `Policy`, its values, or a YAML file; None is the default policy.
        stage: where the network is now, by the policy's name; None is before the first.
    Returns: the verdict with its checks.
    Raises: FileError, for a pilot.json of another schema; CorankError, for a policy that is not allowed, or
        an arm or a stage that is not there.

    >>> arm = {"name": "lowrank", "speedup": {"torch": 0.7}, "speedup_ci": {"torch": [0.6, 0.8]}}
    >>> gate({"schema": 2, "protocol": {}, "arms": [{"name": "dense"}, arm]}).verdict
    'roll back'
    """
    if isinstance(result, Path | str):
        result = read_result(Path(result))
    else:
        check_result(result)
    terms = as_policy(policy)
    arm = _find_arm(result, terms)
    now = _place(terms, stage)
    dense: Mapping[str, Any] = reference_arm(result) or {}
    try:
        checks = tuple(check(result, arm, dense, terms) for check in CHECKS)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise FileError(
            f"pilot result: cannot be judged ({type(error).__name__}: {error}). Use the pilot.json as it was "
            "written."
        ) from error
    outcomes = {one.outcome for one in checks}
    verdict: Verdict = "roll back" if "roll back" in outcomes else "hold" if "hold" in outcomes else "advance"
    needs = max((one.needs for one in checks if one.needs), default=None) if verdict == "hold" else None
    stages = terms.stages
    following = None
    if verdict == "advance":
        following = stages[min(now + 1, len(stages) - 1)]
    elif verdict == "hold" and now >= 0:
        following = stages[now]
    return Decision(verdict, str(arm["name"]), checks, needs, following, terms.model_dump(mode="json"))


def as_policy(policy: Policy | Mapping[str, Any] | Path | str | None) -> Policy:
    """Return a policy, of its values, of a file, or the default one."""
    if policy is None:
        return Policy()
    if isinstance(policy, Policy):
        return policy
    return Policy.read(policy) if isinstance(policy, Path | str) else Policy.from_dict(policy)


def _find_arm(result: Mapping[str, Any], policy: Policy) -> Mapping[str, Any]:
    if policy.arm is None:
        arm = candidate_arm(result)
        if arm is None:
            raise CorankError("gate: only the dense network was run. Run a trial with an arm that is cut.")
        return arm
    for arm in result["arms"]:
        if arm["name"] == policy.arm and policy.arm != "dense":
            return arm  # type: ignore[no-any-return]
    names = [arm["name"] for arm in result["arms"] if arm["name"] != "dense"]
    raise CorankError(f"policy: arm: allowed are {', '.join(names) or 'none'}, got {policy.arm!r}.")


def _place(policy: Policy, stage: str | None) -> int:
    names: Sequence[str] = [one.name for one in policy.stages]
    if stage is None:
        return -1
    if stage not in names:
        raise CorankError(f"stage: allowed are {', '.join(names)} of the policy; got {stage!r}.")
    return names.index(stage)


def tell_stage(stage: Stage) -> str:
    """Say which share of the requests a stage gets, and for how long."""
    share = f"{100 * stage.share:g}%"
    if not stage.hours:
        return say("{name} ({share} of the requests)", name=stage.name, share=share)
    return say(
        "{name} ({share} of the requests, at least {hours} hours)",
        name=stage.name,
        share=share,
        hours=f"{stage.hours:g}",
    )
