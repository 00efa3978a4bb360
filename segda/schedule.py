"""How settings change over the steps of a run."""

import itertools
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Settings that can change in the middle of a run: nothing that was built from them has to be built again.
CHANGEABLE = ("optimizer.lr", "optimizer.weight_decay", "discriminator_optimizer.lr")
_LOSS_WEIGHT = "method.lambda_"


def is_changeable(path: str) -> bool:
    """Return whether a setting may change in the middle of a run: learning rates, weight decay, weights of loss terms.

    Args:
        path: dotted path into a training configuration.

    Example:
        >>> is_changeable("optimizer.lr"), is_changeable("method.lambda_adv"), is_changeable("batch_size")
        (True, True, False)
    """
    return path in CHANGEABLE or path.startswith(_LOSS_WEIGHT)


class Change(BaseModel):
    """New values of some settings from a step on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=1, description="number of updates made with the earlier values; a multiple of report_every")
    values: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        min_length=1, description="dotted path -> new value; learning rates, optimizer.weight_decay, method.lambda_*"
    )

    @model_validator(mode="after")
    def _paths_can_change(self) -> Self:
        for path in self.values:
            if not is_changeable(path):
                raise ValueError(
                    f"{path} cannot change in the middle of a run; {', '.join(CHANGEABLE)} and {_LOSS_WEIGHT}... can"
                )
        return self


class ScheduleConfig(BaseModel):
    """Learning rate over steps: linear warm-up, then (1 - step / horizon) ** power; and settings that change on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    power: float = Field(0.9, gt=0)
    horizon: int | None = Field(None, ge=1, description="step at which the rate would reach zero; unset: `steps`")
    warmup_steps: int = Field(0, ge=0)
    changes: tuple[Change, ...] = Field((), description="settings that take new values on the way, by ascending step")

    @model_validator(mode="after")
    def _changes_ascend(self) -> Self:
        steps = [change.step for change in self.changes]
        if any(first >= second for first, second in itertools.pairwise(steps)):
            raise ValueError(f"changes must have ascending steps, one entry for each, got {steps}")
        return self
