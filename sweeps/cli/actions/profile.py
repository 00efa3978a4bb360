"""What `sweeps profile` does."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click

from segda.documents import as_json
from sweeps.checks.makers import load_spec, stored_spec
from sweeps.commands.driving import changed
from sweeps.commands.machines import machines_at
from sweeps.commands.places import open_ledger
from sweeps.documents.plans import profile_document
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Device
from sweeps.metrics import finite, has_doubts
from sweeps.planning.machines import Machines
from sweeps.planning.patience import Patience
from sweeps.planning.profiles import Architecture, Profile, device_of, profile_all, reachable, renew_trials
from sweeps.reports.formats import FIGURE, PROSE, in_units
from sweeps.reports.table import Column, Table, table_of
from sweeps.reports.terminal import console
from sweeps.reports.terminal_tables import terminal_table
from sweeps.store import Store
from sweeps.suggestions import suggest

_COLUMNS = (
    Column("num_parameters", "params", in_units(1e-6), "M"),
    Column("macs", "MACs", in_units(1e-9), "G"),
    Column("latency_ms", "latency", FIGURE, "ms"),
    Column("latency_iqr_ms", "quartiles", FIGURE, "ms apart"),
    Column("latency_spread", "blocks", in_units(100.0), "% apart"),
    Column("fps", "fps", FIGURE),
    Column("peak_memory_bytes", "memory", in_units(2.0**-20), "MiB"),
)


def profile_action(
    sweep: str,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    again: bool,
    as_document: bool,
) -> None:
    """Do `sweeps profile`; the arguments are the command's."""
    is_file = Path(sweep).suffix in (".yaml", ".yml", ".json") or Path(sweep).is_file()
    store, say = Store.at(store_root), partial(click.echo, err=as_document)
    with open_ledger(store, ledger_url, create=is_file) as ledger:
        spec = load_spec(Path(sweep), data_roots=roots) if is_file else stored_spec(ledger.sweep(sweep))
        spec = changed(spec, data_roots=roots)
        with machines_at(address, spec, say=say) as machines:
            device, profiles = _measured(spec, ledger, machines, again=again, say=say)
        is_begun = any(record.name == spec.name for record in ledger.sweeps())
        renewed = renew_trials(spec, profiles, ledger=ledger) if is_begun and not is_file else []
    if as_document:
        click.echo(as_json(profile_document(spec, profiles, device=device, renewed=renewed)))
        return
    shown = console()
    shown.print(terminal_table(_table(spec, profiles), width=shown.width))
    for architecture, profile in profiles.items():
        for line in profile.doubts:
            click.echo(f"latency of {architecture} is not reliable: {line}")
    for line in dict.fromkeys(line for profile in profiles.values() for line in profile.unchecked):
        click.echo(f"not checked: {line}")
    if renewed:
        listed = f"trial{'s' if len(renewed) > 1 else ''} {', '.join(map(str, renewed))}"
        click.echo(
            f"new figures for {listed}; {suggest('report', spec.name)} and {suggest('sync', spec.name)} show them"
        )


def _measured(
    spec: SweepSpec, ledger: Ledger, machines: Machines, *, again: bool, say: Callable[[str], None]
) -> tuple[Device, dict[Architecture, Profile]]:
    gpus = spec.resources.num_gpus if machines.gpus or spec.resources.gpus != "auto" else 0.0
    device = device_of(spec, machines.look, gpus=gpus)
    patience = Patience(spec.resources.idle_wait_minutes, say=say)
    found = profile_all(
        reachable(spec), device=device, ledger=ledger, patience=patience, call=machines.call, again=again
    )
    run_by = "" if spec.deploy is None else f", run by {spec.deploy}"
    say(f"on {device.name}, {device.threads} thread{'s' if device.threads > 1 else ''}{run_by}")
    return device, dict(found)


def _table(spec: SweepSpec, profiles: Mapping[Architecture, Profile]) -> Table:
    return table_of(
        profiles.items(),
        [
            (Column("network", f"networks of {spec.name}", PROSE), lambda item: str(item[0])),
            *((column, lambda item, key=column.key: finite(item[1].metrics, key)) for column in _COLUMNS),
            (Column("verdict", "", PROSE), lambda item: _verdict(spec, item[1])),
        ],
    )


def _verdict(spec: SweepSpec, profile: Profile) -> str:
    obstacle = profile.obstacle(spec)
    if obstacle is not None:
        return f"never trained: {obstacle}"
    return "latency is not reliable" if has_doubts(profile.metrics) else "measured alone"
