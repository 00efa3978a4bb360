"""What an hour of a trial costs in the user's money, by the prices of the sweep file."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.file.outline import Outline
    from sweeps.file.spec import SweepSpec  # imports PyTorch

PROCESSOR = "cpu"  # what trials without a GPU compute on


def gpu_text(name: str, numbers: str = "") -> str:
    """Return a GPU, or several of a node, as a trial's record has it.

    Example:
        >>> gpu_text("NVIDIA A100", "2,3"), gpu_text("", "0")
        ('GPU 2,3 (NVIDIA A100)', 'GPU 0')
    """
    return " ".join(filter(None, ("GPU", numbers, f"({name})" if name else "")))


@dataclass(frozen=True)
class Prices:
    """Prices of a sweep's devices.

    A device has the price of the longest name that occurs in its own as whole words, whatever their case: `A100` is the price of
    `GPU 0 (NVIDIA A100-SXM4-80GB)`, `A10` is not. A resource that trials ask nodes for comes first: they run nowhere else.

    Attributes:
        per_hour: name of a device, or of a resource -> price of an hour.
        asked: other resources that each trial asks its node for.
        gpus: of a trial. A share of a GPU costs that share; without GPUs the price is that of a trial's processors together.
        currency: of the prices, for people; None: it was not said.
    """

    per_hour: Mapping[str, float]
    asked: Collection[str] = ()
    gpus: float = 0.0
    currency: str | None = None

    def of(self, device: str) -> float | None:
        """Return the price of an hour of a device, or None if there is none.

        Args:
            device: as a trial's record has it: `cpu`, or `GPU` with numbers and the maker's name.
        """
        asked = [price for name, price in self.per_hour.items() if name in self.asked]
        if asked:
            return max(asked)
        fitting = [
            name for name in self.per_hour if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", device, re.IGNORECASE)
        ]
        return self.per_hour[max(fitting, key=len)] if fitting else None

    def paid(self, seconds: float, device: str | None) -> float:
        """Return what a trial costs.

        Args:
            seconds: that a worker had it.
            device: where; one without a price counts as the dearest of all, so that no budget is overspent unseen.
        """
        price = None if device is None else self.of(device)
        return seconds / 3600 * (max(self.per_hour.values()) if price is None else price) * (self.gpus or 1.0)

    def text(self, amount: float) -> str:
        """Return an amount of money for people.

        Example:
            >>> Prices({"cpu": 0.1}, currency="EUR").text(12.5)
            '12.50 EUR'
        """
        return f"{amount:,.2f} {self.currency}" if self.currency else f"{amount:,.2f}"


def prices_of(spec: "SweepSpec | Outline", *, gpus: float) -> Prices | None:
    """Return the prices of a sweep, or None if its file has none.

    Args:
        spec: the sweep.
        gpus: of a trial.
    """
    budget = spec.budget
    if not budget.price_per_hour:
        return None
    return Prices(budget.price_per_hour, tuple(spec.resources.custom), gpus, budget.currency)
