"""What an artefact may cost or must reach, written `latency_ms <= 30`."""

from collections.abc import Iterable

from segda.config_problems import validated
from segda.errors import ConfigError
from segda.names import nearest
from sweeps.file.parts import Constraint, bound_of
from sweeps.metrics import SOURCE_MIOU, is_oracle

# What every artefact is known by. Nothing of it is made from target labels.
FIGURES = (
    *("latency_ms", "latency_p90_ms", "latency_p95_ms", "fps"),
    *("file_mb", "num_parameters", "macs", "agreement", SOURCE_MIOU),
)


def budgets_of(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Read budgets.

    Args:
        texts: each `name <= number` or `name >= number`, of a name in `FIGURES`.

    Raises:
        ConfigError: one of them is none, in one line.

    Example:
        >>> [str(item) for item in budgets_of(["latency_ms<=30", "agreement >= 0.98"])]
        ['latency_ms <= 30', 'agreement >= 0.98']
    """
    return tuple(map(_budget_of, texts))


def _budget_of(text: str) -> Constraint:
    try:
        metric, operator, bound = bound_of(text)
    except ValueError as error:
        raise ConfigError(f"--budget {error}") from None
    if is_oracle(metric):
        raise ConfigError(
            f"--budget {metric} is made from target labels, which steer no choice; known: {', '.join(FIGURES)}"
        )
    if metric not in FIGURES:
        raise ConfigError(
            f"--budget knows no {metric!r}{nearest(metric, FIGURES)}; known: {', '.join(FIGURES)} (file_mb: 10^6 bytes)"
        )
    return validated(Constraint, {"metric": metric, "operator": operator, "bound": bound}, where=f"--budget {text!r}")
