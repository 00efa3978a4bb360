"""How many labels does a choice among finalists need?

    python benchmarks/few_labels.py                        # tables of made-up networks
    python benchmarks/few_labels.py runs:methods_camvid    # a sweep whose target training images have labels on the disk, too
    python benchmarks/few_labels.py --seeds 40 --json few_labels.json

A table has the confusion matrix of each network on each image, and how often two networks differ there. On it labels are asked for
as `sweeps pick` does, five images at random and then rounds of five that the three leaders dispute most; all at once after the
five, by what is known without labels; and at random to the end. Regret is over all images of the table. All rules see the same
tables and begin with the same five images: differences are paired.

Made-up networks have error rates of their own per class, gaps between them are wide or narrow. Images have class shares and a
difficulty of their own, which multiplies error rates and is log-normal: a few images have most of the errors. Pixels come in
patches that are right or wrong together, and half of the errors are common to all networks.

Of a sweep all labels of the target's training images are read, which `sweeps pick` does on request only; seeds then differ in the
five images alone.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Shown

from segda.errors import SegdaError
from segda.files import sha256_of, write_json
from segda.splits import open_split
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import ledger_to_read
from sweeps.execution.predictions import compared
from sweeps.execution.remote import CHECKPOINT
from sweeps.labelling.finalists import leaders
from sweeps.labelling.folder import confusions_of
from sweeps.labelling.images import disagreement_of, look, networks_of, target_images
from sweeps.selection.few_labels import (
    LEADERS,
    RANDOM_IMAGES,
    ROUND,
    interval,
    miou_of,
    most_disputed,
    random_images,
    standing,
)
from sweeps.store import Store

NUMBERS = (5, 10, 20, 40)  # of labels
RULES = ("random", "disputed, in rounds", "disputed, at once")
GAPS = {"wide gaps": 0.25, "narrow gaps": 0.12}  # standard deviation of the logarithm of networks' error rates
NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class LabelTable:
    """What networks say of images, beside the truth.

    Attributes:
        confusions: int64 [images, networks, C, C], rows are labels; networks best first by what is known without labels.
        disagreement: float64 [images, networks, networks].
    """

    confusions: NDArray[np.int64]
    disagreement: NDArray[np.float64]

    def regret(self, network: int) -> float:
        """Return what is lost by choosing a network, over all images."""
        figures = miou_of(self.confusions.sum(axis=0))
        return float(figures.max() - figures[network])


def made_up(
    seed: int, *, gap: float, images: int = 150, networks: int = 8, classes: int = 7, patches: int = 150
) -> LabelTable:
    """Return a table of made-up networks.

    Args:
        seed: of all draws.
        gap: standard deviation of the logarithm of the networks' error rates; of each class 1.5 times as much.
        images: how many.
        networks: how many.
        classes: how many.
        patches: per image, each right or wrong as a whole.
    """
    rng = np.random.default_rng(seed)
    rate = 0.15 * np.exp(rng.normal(0, gap, (networks, 1)) + rng.normal(0, 1.5 * gap, (networks, classes)))
    shares = rng.dirichlet(np.full(classes, 0.8), images)
    truth = (rng.random((images, patches, 1)) > shares.cumsum(axis=1)[:, None, :-1]).sum(axis=2)
    difficulty = np.exp(rng.normal(0, 0.8, (images, 1)) + rng.normal(0, 0.2, (images, networks)))
    error = np.clip(rate[:, truth].swapaxes(0, 1) * difficulty[:, :, None], 0, 0.95)
    shape = (images, networks, patches)

    def half_common(values: NDArray[Any]) -> NDArray[Any]:
        return np.where(rng.random(shape) < 0.5, values[:, :1], values)

    is_wrong = half_common(rng.random(shape)) < error
    said = (truth[:, None] + is_wrong * half_common(rng.integers(1, classes, shape))) % classes
    cells = np.arange(images * networks).reshape(images, networks, 1) * classes**2 + truth[:, None] * classes + said
    confusions = np.bincount(cells.ravel(), minlength=images * networks * classes**2)
    confusions = confusions.reshape(images, networks, classes, classes)
    disagreement = np.stack([(said != said[:, [network]]).mean(axis=2) for network in range(networks)], axis=1)
    # What is known without labels: agreement with all others, as a vote would have it.
    order = np.argsort(disagreement.sum(axis=(0, 2)), kind="stable")
    return LabelTable(confusions[:, order], disagreement[:, order][:, :, order])


def asked(table: LabelTable, rule: str, *, labels: int, seed: int) -> list[int]:
    """Return the images that a rule has labelled, in its order.

    Args:
        table: the networks on the images.
        rule: one of `RULES`.
        labels: how many.
        seed: of random draws.
    """
    total = len(table.confusions)
    chosen = random_images(total, seed=seed)
    if rule == "random":
        rest = np.random.default_rng((seed, 1)).permutation(total).tolist()
        return (chosen + [image for image in rest if image not in chosen])[:labels]
    leaders: Sequence[int] = range(min(LEADERS, table.confusions.shape[1]))
    step = ROUND if rule == "disputed, in rounds" else labels
    while len(chosen) < min(labels, total):
        if rule == "disputed, in rounds":
            figures = miou_of(table.confusions[chosen].sum(axis=0))
            leaders = np.argsort(-figures, kind="stable")[:LEADERS].tolist()
        left = [image for image in range(total) if image not in set(chosen)]
        chosen += most_disputed(table.disagreement, leaders, left=left, count=min(step, labels - len(chosen)))
    return chosen[:labels]


def regret_of(table: LabelTable, rule: str, *, labels: int, seed: int) -> float:
    """Return what is lost by the pick of so many labels of a rule."""
    figures = miou_of(table.confusions[asked(table, rule, labels=labels, seed=seed)].sum(axis=0))
    return table.regret(int(figures.argmax()))


def table_of(place: str) -> LabelTable:
    """Run the finalists of a sweep over all labelled training images of its target; `STORE:SWEEP`."""
    root, _, name = place.partition(":")
    store = Store.at(root)
    with ledger_to_read(store, None) as ledger:
        spec = stored_spec(ledger.sweep(name))
        trials = compared(ledger.trials(name), store=store, storage=spec.storage)
    chosen, _ = leaders(trials, spec)
    images = target_images(chosen, {})
    data = images.config.data.model_copy(update=dict(zip(("height", "width"), images.size, strict=True)))
    config = images.config.model_copy(update={"data": data})
    truth = open_split(config, data.target, "train", with_labels=True, samples=list(images.samples))
    assert truth.labels is not None
    checkpoints = [sha256_of(store.trial(trial) / CHECKPOINT) for trial in chosen]
    confusions, disagreement = [], []
    with networks_of(chosen, checkpoints, spec=spec, store=store) as networks:
        for label, (_, maps) in zip(truth.labels, look(networks, images, list(images.samples)), strict=True):
            confusions.append(confusions_of(label, maps, len(images.dataset.classes)))
            disagreement.append(disagreement_of(maps))
    return LabelTable(np.stack(confusions), np.stack(disagreement))


def measured(tables: Sequence[LabelTable]) -> dict[str, dict[int, list[float]]]:
    """Return rule -> labels -> regret of each seed, on the table of that seed."""
    return {
        rule: {
            labels: [regret_of(table, rule, labels=labels, seed=seed) for seed, table in enumerate(tables)]
            for labels in NUMBERS
        }
        for rule in RULES
    }


def said_of(tables: Sequence[LabelTable]) -> dict[int, tuple[float, float, float, float]]:
    """Return labels -> (true mean regret, the one that is told, how often the bound holds, coverage of the random part's interval).

    Coverage is that of the first network over as many random images.
    """
    found = {}
    for labels in NUMBERS:
        rows = []
        for seed, table in enumerate(tables):
            chosen = asked(table, RULES[1], labels=labels, seed=seed)
            said = standing(
                table.confusions[chosen], [place < RANDOM_IMAGES for place in range(labels)], seed=seed, unscored=NONE
            )
            regret = table.regret(said.pick)
            truth = float(miou_of(table.confusions[:, 0].sum(axis=0)))
            drawn = np.random.default_rng((seed, 2)).permutation(len(table.confusions))[:labels]
            ends = interval(table.confusions[drawn, 0], NONE)
            assert ends.low is not None
            assert ends.high is not None
            rows.append((regret, said.regret, regret <= said.regret_bound, ends.low <= truth <= ends.high))
        found[labels] = tuple(np.mean(np.array(rows, dtype=float), axis=0).tolist())
    return found


def of_rules(title: str, found: dict[str, dict[int, list[float]]]) -> Shown:
    """Mean regret in points with its standard error, and the paired difference to random images."""
    shown = Shown("rule", *(f"{labels} labels" for labels in NUMBERS), title=f"{title}: regret in points of mIoU")
    for rule, rows in found.items():
        shown.add_row(rule, *(_mean(rows[labels]) for labels in NUMBERS))
        if rule != RULES[0]:
            pairs = {labels: np.subtract(rows[labels], found[RULES[0]][labels]).tolist() for labels in NUMBERS}
            shown.add_row("  minus random, paired", *(_mean(pairs[labels]) for labels in NUMBERS))
    return shown


def of_words(title: str, found: dict[int, tuple[float, float, float, float]]) -> Shown:
    """What is told beside what is true."""
    shown = Shown(
        "labels",
        "regret",
        "regret as told",
        "bound holds",
        "interval covers",
        title=f"{title}: what is told, and what is true",
    )
    for labels, (regret, told, bound, covers) in found.items():
        shown.add_row(str(labels), f"{100 * regret:.2f}", f"{100 * told:.2f}", f"{bound:.0%}", f"{covers:.0%}")
    return shown


def _mean(values: Sequence[float]) -> str:
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{100 * float(np.mean(values)):.2f} ± {100 * error:.2f}"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", metavar="STORE:SWEEP", help="sweeps in place of made-up networks")
    parser.add_argument("--seeds", type=int, default=40, help="how many, 2 or more [40]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into this file, too")
    options = parser.parse_args(None if words is None else list(words))
    seeds = range(options.seeds)
    try:
        tables = {place: [table_of(place)] * options.seeds for place in options.places}
    except SegdaError as error:
        raise SystemExit(f"error: {error}") from error
    if not tables:
        tables = {name: [made_up(seed, gap=gap) for seed in seeds] for name, gap in GAPS.items()}
    console, kept = Console(width=120), {}
    for title, rows in tables.items():
        rules, told = measured(rows), said_of(rows)
        console.print(of_rules(title, rules))
        console.print(of_words(title, told))
        kept[title] = {"regret": rules, "told": told}
    if options.json is not None:
        write_json(options.json, kept)


if __name__ == "__main__":
    main()
