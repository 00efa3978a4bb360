"""The model card of a winner: what the file is, how it was chosen and measured, and what nobody knows of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segda.config import TrainConfig
from segda.deployment.record import ArtefactRecord
from segda.methods import METHODS
from sweeps.deployment.artefacts import Artefact
from sweeps.deployment.choice import Entry
from sweeps.deployment.recipes import RuntimeName
from sweeps.file.parts import Constraint
from sweeps.file.spec import SweepSpec
from sweeps.labels import method_label, model_label, short_params
from sweeps.ledger.records import Device
from sweeps.metrics import CRITERIA, SOURCE_MIOU
from sweeps.reports.formats import count, percent, scaled
from sweeps.reports.markdown import markdown_line
from sweeps.reports.marks import IN_COMPANY, explained
from sweeps.selection.choice import Selection
from sweeps.selection.reasons import shown_figure


@dataclass(frozen=True)
class Circumstances:
    """What all artefacts of a deployment share.

    Attributes:
        spec: the sweep.
        selection: its own choice of a trial.
        budgets: what the winner had to keep.
        device: what was measured on.
        runtime: what ran the artefacts.
        versions: package -> version that measured.
    """

    spec: SweepSpec
    selection: Selection
    budgets: Sequence[Constraint]
    device: Device
    runtime: RuntimeName
    versions: Mapping[str, str]

    @property
    def metric(self) -> str:
        """Name of the criterion's metric."""
        return CRITERIA[self.selection.used]

    @property
    def where(self) -> str:
        """The device, what computes there, and with how many threads."""
        threads = f", {count(self.device.threads, 'thread')}"
        return f"{self.device.name}{threads if self.device.kind == 'cpu' else ''}, {self.runtime}"


def facts_of(entry: Entry, circumstances: Circumstances) -> dict[str, Any]:
    """Return the winner's figures as plain data, for programs and for the sweep's report.

    Args:
        entry: the winner.
        circumstances: of all artefacts.
    """
    artefact, latency = entry.artefact, entry.artefact.latency
    assert latency is not None
    return {
        "sweep": circumstances.spec.name,
        "trial": artefact.candidate.trial.number,
        "key": artefact.candidate.trial.key,
        "recipe": artefact.recipe.words,
        "sha256": artefact.sha256,
        "budgets": [str(item) for item in circumstances.budgets],
        "criterion": circumstances.selection.used,
        "value": entry.value.value,
        "figures": artefact.figures(),
        "device": circumstances.where,
        "doubts": list(latency.doubts),
    }


def model_card(
    entry: Entry, entries: Sequence[Entry], circumstances: Circumstances, *, record: ArtefactRecord, config: TrainConfig
) -> str:
    """Return the card as Markdown; the same artefact in the same company has the same card.

    Args:
        entry: the winner.
        entries: all artefacts.
        circumstances: what they share.
        record: what the file says of itself.
        config: what its network was trained with.
    """
    artefact = entry.artefact
    title = f"{circumstances.spec.name}: {model_label(artefact.candidate.trial)}, {artefact.recipe.words}"
    sections = [
        ("What it is", _file(artefact, record)),
        ("What goes in and what comes out", _contract(artefact, record)),
        ("What it was trained on", _training(artefact, record, circumstances, config)),
        ("How it was chosen", _choice(entry, entries, circumstances)),
        ("How well it predicts", _quality(entry, circumstances)),
        ("How fast it is", _speed(artefact, circumstances, record)),
        ("Terms", _terms(record, config)),
        ("What is not known", _unknown(entry, circumstances, config)),
        ("Classes", _table(("id", "class"), enumerate(record.classes))),
    ]
    blocks = [f"# {markdown_line(title)}", markdown_line(circumstances.spec.question)]
    for heading, lines in sections:
        blocks += [f"## {heading}", "\n".join(lines)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _file(artefact: Artefact, record: ArtefactRecord) -> list[str]:
    trial = artefact.candidate.trial
    rows = [
        ("file", f"`network{artefact.path.suffix}`, {artefact.file_bytes / 1e6:.2f} MB, SHA-256 `{artefact.sha256}`"),
        ("network", model_label(trial)),
        ("arithmetic", _arithmetic(artefact, record)),
        ("parameters", f"{scaled(artefact.num_parameters, 1e-6)} M"),
        ("multiply-accumulates", f"{scaled(artefact.macs, 1e-9)} G for one image of {_size(record.trained_size)}"),
        ("made of", f"trial {trial.number} (key `{trial.key}`), checkpoint with SHA-256 `{record.checkpoint}`"),
        ("made with", ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))),
    ]
    return _table(("", ""), rows)


def _arithmetic(artefact: Artefact, record: ArtefactRecord) -> str:
    parts = [artefact.recipe.words]
    if record.calibrated_on:
        parts.append(f"ranges from {record.calibrated_on}")
    if artefact.recipe.ratio is not None:
        parts.append("statistics of batch normalization estimated anew, no further training")
    return "; ".join(parts)


def _contract(artefact: Artefact, record: ArtefactRecord) -> list[str]:
    coarse = (
        " They are decided at a quarter of height and width, each for 4 x 4 pixels." if record.argmax != "full" else ""
    )
    lines = [
        f"Input `image`: {record.accepts}, RGB 0..255. It was trained and measured at {_size(record.trained_size)} (height x "
        "width).",
        f"Output `classes`: uint8 [batch, height, width], for every pixel an id of the table of classes below.{coarse}",
        "Normalization, enlargement and argmax are inside. There are no probabilities.",
        "",
    ]
    if artefact.path.suffix == ".onnx":
        lines += [
            "```python",
            "session = onnxruntime.InferenceSession('network.onnx')",
            "(classes,) = session.run(['classes'], {'image': image})",
            "```",
        ]
    else:
        lines += [
            "```python",
            "network = segda.deployment.load_artefact('network.pt2')",
            "classes = network(image)",
            "```",
        ]
    return lines


def _training(
    artefact: Artefact, record: ArtefactRecord, circumstances: Circumstances, config: TrainConfig
) -> list[str]:
    trial = artefact.candidate.trial
    marks = explained(trial, processes=circumstances.spec.resources.processes)
    supervision = METHODS[config.method.name].supervision
    learned = [f"labels of {record.source if supervision == 'source' else record.target}"]
    if supervision == "source" and config.method.name != "source_only":
        learned.append(f"images of {record.target} without labels")
    if config.data.external_labels is not None:
        learned.append(f"labels that something else has made of {record.target} (`segda teach`)")
    if config.distillation is not None:
        learned.append("the predictions of a trained network (`distillation`)")
    return _table(
        ("", ""),
        [
            ("source", record.source),
            ("adapted to", record.target),
            ("method", f"{method_label(trial)}; {short_params(trial.params)}"),
            ("learned from", " and ".join(learned)),
            ("training", f"{trial.step} steps, {config.batch_size} images of each domain at once, seed {trial.seed}"),
            ("initial weights", _initial_weights(config)),
            *((sign, text) for sign, text in marks.items() if sign != IN_COMPANY),  # the file was measured itself
        ],
    )


def _initial_weights(config: TrainConfig) -> str:
    if config.start is not None:
        return f"those of a checkpoint with SHA-256 {config.start.digest}"
    named = getattr(config.model, "pretrained", "none")
    return "random" if named == "none" else f"pretrained: {named}"


def _choice(entry: Entry, entries: Sequence[Entry], circumstances: Circumstances) -> list[str]:
    selection, candidate = circumstances.selection, entry.artefact.candidate
    trials = sorted({item.artefact.candidate.trial.number for item in entries})
    made = [item for item in entries if item.artefact.refused is None]
    keep = [item for item in made if item.obstacle is None]
    by = "target labels" if selection.used == "oracle" else "no target label"
    seeds = (
        f"the mean over {len(candidate.seeds)} further seeds ({', '.join(map(str, candidate.seeds))}), plus what the file gains or "
        "loses against its own network"
        if candidate.seeds
        else "one training seed, the one that chose the candidates, which flatters them"
    )
    lines = [
        f"- Budgets: {', '.join(f'`{item}`' for item in circumstances.budgets)}.",
        f"- Criterion: {selection.used} (`{circumstances.metric}`), that of the sweep; it reads {by}.",
        f"- Figures rest on {seeds}.",
        f"- Candidates: {len(trials)} (trials {', '.join(map(str, trials))}), {len(made)} artefacts of them, {len(keep)} of these "
        "within the budgets; this one is worth most.",
        f"- The sweep itself picked {'this' if candidate.is_picked else 'another'} trial: {markdown_line(selection.reason)}",
    ]
    others = [item for item in entries if item is not entry]
    return [*lines, *([""] if others else []), *(_others(others, circumstances) if others else [])]


def _others(entries: Sequence[Entry], circumstances: Circumstances) -> list[str]:
    rows = []
    for entry in entries:
        figures, value = entry.artefact.figures(), entry.value.value
        rows.append(
            (
                str(entry.artefact),
                "–" if value is None else shown_figure(circumstances.metric, value),
                scaled(figures.get("latency_ms")),
                scaled(figures.get("file_mb")),
                entry.obstacle or "worth less",
            )
        )
    return _table(("not chosen", circumstances.selection.used, "latency ms", "file MB", "why"), rows)


def _quality(entry: Entry, circumstances: Circumstances) -> list[str]:
    artefact, value = entry.artefact, entry.value
    assert value.value is not None
    assert value.figure is not None
    metric = circumstances.metric
    of_network = " (of the network that it was made of: a file without probabilities cannot tell it)"
    rows = [
        (f"{circumstances.selection.used}, what it was ranked by", shown_figure(metric, value.value)),
        (
            f"{circumstances.selection.used}, of this file{of_network if value.is_of_network else ''}",
            shown_figure(metric, value.figure),
        ),
        ("mean IoU on the source's validation split", f"{percent(artefact.metrics[SOURCE_MIOU])} %"),
        (
            "pixels in which it says what the trained network says",
            f"{artefact.agreement:.3%} of {artefact.compared_images} target images, "
            f"{artefact.worst_agreement:.3%} in the worst of them",
        ),
        ("pixels in which it says what it was converted from says", f"{artefact.parity:.3%}"),
    ]
    if artefact.oracle_miou is not None:
        used = "it chose" if circumstances.selection.used == "oracle" else "not used for any choice"
        rows.append((f"mean IoU on the target's labelled split (oracle, {used})", f"{percent(artefact.oracle_miou)} %"))
    return _table(("", ""), rows)


def _speed(artefact: Artefact, circumstances: Circumstances, record: ArtefactRecord) -> list[str]:
    latency = artefact.latency
    assert latency is not None
    rows = [
        ("median", f"{latency.median_ms:.2f} ms, {latency.fps:.1f} images per second"),
        ("90th and 95th percentile", f"{latency.p90_ms:.2f} ms, {latency.p95_ms:.2f} ms"),
        ("between the quartiles", f"{latency.iqr_ms:.2f} ms"),
        ("between blocks of runs", f"{latency.spread:.1%}"),
        ("runs", f"{latency.runs} after {latency.warmup} to warm up"),
        ("device", circumstances.device.name),
        ("threads", str(latency.threads)),
        ("run by", f"{circumstances.runtime} ({_versions(circumstances.versions)})"),
        ("image", f"one of {_size(record.trained_size)}, from its bytes in memory to its class map"),
    ]
    return [
        *_table(("", ""), rows),
        "",
        *(f"- Not reliable: {markdown_line(line)}" for line in latency.doubts),
        *(f"- Not checked: {markdown_line(line)}" for line in latency.unchecked),
        *(
            []
            if latency.doubts
            else [
                "- Nobody else was seen to compute on the device meanwhile, and it was as fast as it can be most of the time."
            ]
        ),
    ]


def _terms(record: ArtefactRecord, config: TrainConfig) -> list[str]:
    lines = [f"- Data {name}: {markdown_line(terms)}" for name, terms in sorted(record.data_terms.items())]
    if _initial_weights(config) != "random":
        lines.append(
            f"- Initial weights ({_initial_weights(config)}): their terms are not recorded; ask whoever published them."
        )
    return [*lines, "- Terms of the data may bind what was trained on them."]


def _unknown(entry: Entry, circumstances: Circumstances, config: TrainConfig) -> list[str]:
    lines = ["- Figures hold for the domains above; on any other nothing was measured."]
    if entry.artefact.oracle_miou is None:
        lines.append("- How well it predicts on the target: no labels of the target were there to tell.")
    if not entry.artefact.candidate.seeds:
        lines.append("- How much of its figure is luck: the candidates do not share further training seeds.")
    if entry.artefact.recipe.ratio is not None:
        lines.append("- What the smaller network would be worth if it were trained on.")
    if _initial_weights(config) != "random":
        lines.append("- What the initial weights were trained on beyond what their publisher says.")
    return [
        *lines,
        "- How fast it is at other sizes, on other devices, with other numbers of threads or images at once.",
        "- How it does in weather, light, cameras and scenes that the validation images do not show.",
    ]


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return [*lines, *(f"| {' | '.join(markdown_line(str(cell)) for cell in row)} |" for row in rows)]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
