"""A sweep or a trial in full, as text for a terminal or a log."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.table import Table as Picture
from rich.text import Text

from segda.documents import utc
from segda.masking import masked
from sweeps.labels import duration, format_value, kind_label, settings_label
from sweeps.ledger.records import SweepState
from sweeps.metrics import EFFICIENCY, has_doubts, visible_metrics
from sweeps.reports.formats import PROSE, WHOLE, Format, scaled
from sweeps.reports.status_table import header_lines
from sweeps.reports.sweep_details import SweepDetails
from sweeps.reports.table import Column, table_of
from sweeps.reports.terminal_tables import terminal_table
from sweeps.reports.text import seeds_text
from sweeps.reports.trial_details import MetricHistory, TrialDetails

T = TypeVar("T")
_DIGITS = Format(lambda value: f"{value:.4g}")
_KIBIBYTES = Format(lambda num_bytes: f"{num_bytes / 1024:,.1f}")


def render_sweep(found: SweepDetails) -> RenderableType:
    """Return a sweep, to be printed; what to do next is in `next_lines`.

    Args:
        found: the sweep.
    """
    spec, record, account = found.spec, found.status.record, found.account
    picked, info = found.selection.picked, record.info
    budget = ", ".join(f"{name} {value}" for name, value in spec.budget if value not in (None, {}))
    used = [
        f"{found.status.done} trials",
        f"{account.wall_seconds / 3600:.2f} h",
        f"{account.worker_seconds / 3600:.2f} worker hours",
    ]
    if account.gpu_seconds:
        used.append(f"{account.gpu_seconds / 3600:.2f} GPU hours")
    if account.prices is not None and account.cost is not None:
        used.append(account.prices.text(account.cost))
    rows = {
        "question": spec.question or "none given",
        "sweep file": info.file or "not recorded",
        "fingerprint": spec.fingerprint() + (f", data {info.data_fingerprint}" if info.data_fingerprint else ""),
        "begun": utc(record.created),
        "budget": budget,
        "used": ", ".join(used),
        "objectives": ", ".join(f"{item.direction} {item.metric}" for item in spec.objectives),
        "constraints": ", ".join(map(str, spec.constraints)) or "none",
        "search": f"{len(spec.search)} parameters by {spec.sampler.name}, scheduler {spec.scheduler.name}, seed {spec.seed}",
        "training seeds": seeds_text(spec),
        "selection": spec.selection + (": reads target labels" if spec.selection == "oracle" else ""),
        "pick": "none yet" if picked is None else f"trial {picked.number} ({settings_label(picked)})",
        "why": found.selection.reason,
    }
    if found.winner is not None:
        rows["deployed"] = f"{found.winner['recipe']} of trial {found.winner['trial']}"
    head, *rest = header_lines(found.status)
    parts: list[RenderableType] = [Text(head, style="bold"), *map(Text, rest), _grid(rows)]
    if spec.references:
        references = {
            name: ", ".join(f"{path} {format_value(value)}" for path, value in values.items())
            for name, values in spec.references.items()
        }
        parts += [_title("references"), _grid(references)]
    places = {what: str(place) for what, place in found.places().items()}
    if spec.storage is not None:
        places["storage"] = _shown(spec.storage)
    if spec.tracking.uri is not None:
        places["mlflow"] = _shown(spec.tracking.uri)
    parts += [_title("where"), _grid(places or {"folder": f"{found.store.sweep(found.name)} (not there)"})]
    if record.state is not SweepState.FINISHED and found.status.trouble is not None:
        parts.append(Text(found.status.trouble, style="red"))
    return Group(*parts)


def next_lines(found: SweepDetails | TrialDetails) -> list[str]:
    """Return the commands that lead on, one a line: no table may break or cut what is to be copied.

    Args:
        found: a sweep or a trial.
    """
    if isinstance(found, TrialDetails):
        return ["", "to train it alone", found.train_command]
    return ["", "next", *(f"{command}  # {what}" for command, what in found.next_commands())]


def render_trial(found: TrialDetails, *, oracle: bool) -> RenderableType:
    """Return a trial, to be printed; the command that trains it alone is in `next_lines`.

    Args:
        found: the trial.
        oracle: whether metrics that are made from target labels are shown too; they are where the sweep chooses by them.
    """
    record = found.record
    rows = {
        "state": f"{record.state.value}, step {record.step} of {record.config['steps']}",
        "kind": kind_label(record),
        "seed": str(record.seed),
        "key": record.key,
        "time": " to ".join(filter(None, (utc(record.started), utc(record.finished)))) or "not begun",
        "workers had it": duration(record.seconds),
        "MLflow run": record.run_id or "none",
        "folder": f"{found.folder}{_where(found)}",
        "log": found.log_command if found.log is not None else "none here",
    }
    if record.reused is not None:
        rows["taken from"] = f"trial {record.reused}, which computed the same"
    if record.micro_batch is not None:
        rows["images at once"] = f"{record.micro_batch} of each domain, after it ran out of memory"
    title = f"trial {record.number} of {record.sweep} ({settings_label(record)})"
    parts: list[RenderableType] = [Text(title, style="bold"), _grid(rows)]
    searched = {path: format_value(value) for path, value in record.params.items()}
    parts += [_title("searched"), _grid(searched or {"nothing": "a reference without settings of its own"})]
    costs = {name: scaled(record.profile[name]) for name in EFFICIENCY if name in record.profile}
    if costs:
        doubtful = " (times are not reliable: measured in company)" if has_doubts(record.profile) else ""
        parts += [_title(f"cost{doubtful}"), _grid(costs)]
    shown = shown_metrics(found, oracle=oracle)
    if shown:
        parts += [_title("metrics"), _metrics(shown)]
    left_out = len(found.metrics) - len(shown)
    if left_out:
        parts.append(Text(f"{left_out} metrics made from target labels are left out; --oracle shows them", style="dim"))
    if found.attempts:
        parts += [_title("attempts"), _attempts(found)]
    if record.failure is not None:
        parts += [_title(f"last failure: {record.failure.label}"), Text(record.error or "")]
        if found.traceback is not None:
            parts.append(Text(found.traceback, style="dim"))
    if found.files:
        parts += [_title("files"), _files(found)]
    return Group(*parts)


def shown_metrics(found: TrialDetails, *, oracle: bool) -> dict[str, MetricHistory]:
    """Return the metrics of a trial that somebody gets to see.

    Args:
        found: the trial.
        oracle: whether those that are made from target labels were asked for.
    """
    last = {name: item.last for name, item in found.metrics.items()}
    names = last if oracle else visible_metrics(last, found.spec.selection)
    return {name: found.metrics[name] for name in names}


def _where(found: TrialDetails) -> str:
    if not found.folder.is_dir():
        place = "" if found.spec.storage is None else f"; its files are at {_shown(found.spec.storage)}"
        return f" (not there{place})"
    return (
        "" if found.is_here else f" (its last attempt ran elsewhere; newer files are at {_shown(found.spec.storage)})"
    )


def _shown(address: str | None) -> str:
    return masked(address or "")


def _grid(rows: Mapping[str, str | None]) -> Picture:
    table = Picture.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        # As text, because names and values may have brackets, which would be taken for styles.
        table.add_row(Text(name), Text(text or ""))
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _whole(items: Iterable[T], *columns: tuple[Column, Callable[[T], Any]]) -> Picture:
    """Return a table that leaves nothing out: long texts are broken."""
    return terminal_table(table_of(items, columns), width=0)


def _metrics(shown: Mapping[str, MetricHistory]) -> Picture:
    return _whole(
        shown.items(),
        (Column("metric", "metric", PROSE), lambda item: item[0]),
        (Column("last", "last", _DIGITS), lambda item: item[1].last),
        (Column("step", "at step", WHOLE), lambda item: item[1].step),
        (Column("best", "best", _DIGITS), lambda item: item[1].best),
        (Column("best_step", "of step", WHOLE), lambda item: item[1].best_step),
    )


def _attempts(found: TrialDetails) -> Picture:
    return _whole(
        found.attempts,
        (Column("attempt", "attempt", WHOLE), lambda item: item.number),
        (Column("worker", "worker"), lambda item: item.worker or ""),
        (Column("device", "device"), lambda item: item.device or ""),
        (Column("started", "started"), lambda item: utc(item.started) or ""),
        (Column("ended", "ended"), lambda item: utc(item.ended) or ""),
        (Column("end", "end"), lambda item: item.end + (f": {item.failure.label}" if item.failure else "")),
        (Column("message", "", PROSE), lambda item: item.message),
    )


def _files(found: TrialDetails) -> Picture:
    return _whole(
        found.files,
        (Column("file", "file", PROSE), lambda item: item.name),
        (Column("size", "KiB", _KIBIBYTES), lambda item: item.num_bytes),
        (Column("written", "written"), lambda item: utc(item.modified) or ""),
    )
