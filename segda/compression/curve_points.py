"""What is known of a trained network at levels of pruning; `curve.py` finds it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

DENSE, GLOBAL, MODULE = "dense", "global", "module"  # scopes that are no module


class Point(BaseModel):
    """The scores of a network at one level of pruning.

    Attributes:
        scope: `global` (one ranking over all layers), `module` (the same share of every layer), the name of the module that alone
            is pruned, by one ranking over its layers, or `dense`. level: share of the weights in the scope that was asked for.
            recalibrated: whether batch normalization's statistics were estimated anew afterwards. sparsity: share of zeros among
            all weights that may become zero. source_val_miou: of the source's validation split. source_val_pixel_accuracy: the
            same. oracle_target_miou: of the target's labelled split, for reading only; None: there is none, or it was not scored.
            oracle_target_pixel_accuracy: the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str
    level: float
    recalibrated: bool
    sparsity: float
    source_val_miou: float
    source_val_pixel_accuracy: float
    oracle_target_miou: float | None
    oracle_target_pixel_accuracy: float | None


class PruneCurve(BaseModel):
    """What `prune_curve` found.

    Attributes:
        job: what was asked for: network, data, levels, and how it was computed.
        num_weights: of the network that may become zero.
        scopes: in the order in which they were scored, with the number of weights of each that may become zero.
        points: so far; `dense` is the network as it was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: dict[str, Any]
    num_weights: int
    scopes: dict[str, int]
    points: tuple[Point, ...]

    def of(self, scope: str, *, recalibrated: bool) -> list[Point]:
        """Return the points of a scope by level, which begin with the dense network."""
        wanted = {DENSE, scope}
        found = [point for point in self.points if point.scope in wanted and point.recalibrated == recalibrated]
        return sorted(found, key=lambda point: point.level)
