import dataclasses
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from records import CLASSES, PROFILE, replicate, trial
from rich.console import Console

from segda.config_problems import LocatedError
from segda.errors import ConfigError
from segda.image_confusions import SOURCE_CONFUSIONS, ImageConfusions, write_image_confusions
from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, write_target_prediction
from sweeps.failures import FailureClass
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import Point
from sweeps.reports import plots
from sweeps.reports import text as report_text
from sweeps.reports.markdown import markdown_block, markdown_code
from sweeps.reports.proof import report_problems
from sweeps.reports.standing_tables import standing_rows
from sweeps.reports.summary import summary
from sweeps.reports.sweep_report import cost_bounds, write_report
from sweeps.reports.view import load_view
from sweeps.trial import TrialKind, TrialState

# A whole PNG of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
VOID_ELEMENTS = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: what it loads, its tables, its ids; an element that is closed in the wrong order is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.loads, self.ids, self.tables, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [attrs[name] for name in ("src", "srcset", "data", "poster") if attrs.get(name)]
        self.loads += [attrs["href"]] if tag in ("link", "base") and "href" in attrs else []
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def table(page, heading):
    """Return the rows of the table that has a heading, as dictionaries."""
    (rows,) = [rows for rows in page.tables if rows and heading in rows[0]]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def markdown_table(text, heading):
    """Return the rows of the Markdown table under a heading as dictionaries."""
    lines = text.split(f"## {heading}\n", 1)[1].splitlines()
    lines = list(itertools.dropwhile(lambda line: not line.startswith("|"), lines))
    lines = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert set("".join(rows[1])) <= set("-: ")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


@pytest.fixture(autouse=True)
def short_script(monkeypatch):
    """Writing and reading megabytes of plotly.js would take most of the time; test_plots.py looks at the true script."""
    monkeypatch.setattr(plots, "plotly_script", lambda: "/* plotly.js v0 */")


@pytest.fixture
def spec(make_spec):
    return make_spec(
        question="Which <discriminator> is best?",
        search={
            "method.name": ["source_only", "adversarial"],
            "method.discriminator": {"choices": ["fcd", "dwd"], "when": {"method.name": "adversarial"}},
            "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
        },
        constraints=["fps >= 30"],
        seeds=[0, 1, 2],
        budget={"trials": 5, "concurrency": 1},
        references={"upper_bound": {"method.name": "target_only"}},
    )


@pytest.fixture
def records():
    best = trial(1, 0.62, 0.45, discriminator="dwd", seconds=65.0, attempt=2, micro_batch=2)
    return [
        trial(0, 0.60, 0.40, method="source_only", metrics={"target/validator/im": 0.9}),
        best,
        trial(2, 0.58, 0.48, discriminator="fcd", profile=PROFILE | {"macs": 2e9, "fps": 70.0, "latency_ms": 14.3}),
        trial(3, 0.61, 0.05, metrics={"target/largest_class_share": 0.99}),
        trial(
            4,
            0.2,
            state=TrialState.FAILED,
            failure=FailureClass.DIVERGED,
            error="loss | became NaN <b>here</b>",
            attempt=1,
            step=30,
        ),
        trial(5, 0.3, state=TrialState.PRUNED, step=30),
        trial(6, 0.4, 0.55, method="target_only", kind=TrialKind.REFERENCE, name="upper_bound"),
        replicate(7, best, 0.60, 0.43, seed=1),
        replicate(8, best, 0.62, 0.45, seed=2),
    ]


@pytest.fixture
def written(ledger, store, spec, records, begun):
    """A finished sweep in the ledger, with files of the trials that were trained."""
    begun(spec)
    for record in records:
        ledger.add_trial(record)
        if record.state is TrialState.COMPLETE:
            folder = store.trial(record)
            folder.mkdir(parents=True)
            iou = dict.fromkeys(CLASSES, record.metrics["source/val/miou"])
            target = dict.fromkeys(CLASSES, record.metrics["oracle/target/miou"]) | {"Sky": None}
            splits = {"source/val": {"iou": iou}, "oracle/target": {"iou": target}}
            content = {"classes": list(CLASSES), "splits": splits, "precision": "float32"}
            (folder / "result.json").write_text(json.dumps(content))
            (folder / "environment.json").write_text(json.dumps({"device_name": "Example CPU", "python": "3.11"}))
            for domain in ("source", "target"):
                (folder / f"examples_{domain}.png").write_bytes(PIXEL)
    return spec


@pytest.fixture
def pages(ledger, store, written):
    paths = write_report(ledger, store, written.name)
    return paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_a_network_and_is_well_formed(pages):
    page = Page(pages[0])
    assert page.loads
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert "@import" not in pages[0].split("</style>")[0]
    assert "url(" not in pages[0].split("</style>")[0]
    assert "default-src 'none'" in pages[0]
    assert len(page.ids) == len(set(page.ids))


def test_the_script_of_the_figures_is_in_the_page_once(pages):
    assert pages[0].count("plotly.js v") == 1
    for name in ("pareto", "criterion", "parallel", "classes"):
        assert f'id="figure-{name}"' in pages[0]


def test_both_tables_of_trials_hold_every_trial_with_its_figures(pages, records):
    html_rows = table(Page(pages[0]), "kind")
    text_rows = markdown_table(pages[1], "All trials")
    assert [row["trial"] for row in html_rows] == ["0", "1† ★", "2", "3", "4", "5", "6", "7", "8"]
    assert [row["trial"] for row in text_rows] == [row["trial"] for row in html_rows]
    assert len(records) == len(html_rows)
    assert text_rows[1] == {
        "trial": "1† ★",
        "kind": "search",
        "state": "complete",
        "method": "adversarial × dwd",
        "parameters": "lr 0.02",
        "seed": "0",
        "steps": "100",
        "source mIoU %": "62.0",
        "target mIoU % (oracle)": "45.0",
        "MACs G": "3",
        "params M": "12",
        "latency ms": "20",
        "fps": "50",
        "time on workers": "1 min 05 s",
        "notes": "2 attempts, micro-batches of 2",
    }
    assert html_rows[1]["source mIoU%"] == "62.0"
    assert text_rows[7]["kind"] == "replicate of 1"


def test_a_trial_in_micro_batches_is_marked_in_every_table_that_it_enters(pages):
    note = "† trained with 2 images at once instead of 4: batch normalization saw fewer images (trial 1)."
    columns = ("trial", "finalist", "against", "best trial (by source validation)", "network")
    marked = set()
    for heading in re.findall(r"^##+ (.*)$", pages[1], flags=re.MULTILINE):
        section = re.split(r"\n##+ ", pages[1].split(f"## {heading}\n", 1)[1])[0]
        if "\n| --- |" in section.replace(" ---: ", " --- ") and "\n| | |" not in section:
            rows = markdown_table(f"## {heading}\n{section}", heading)
        else:
            continue
        cells = [row[column] for row in rows for column in columns if column in row]
        assert not [cell for cell in cells if re.fullmatch(r"(.* )?1( ★)?", cell)], heading
        if any("1†" in cell for cell in cells):
            marked.add(heading)
    assert marked == {
        "What each criterion picks",
        "Repetitions over seeds",
        "Distance between the domains",
        "Methods",
        "What each method is worth",
        "All trials",
    }
    assert "**Trial 1†.**" in pages[1]
    assert "Pick: trial 1†" in pages[0]
    for heading in ("kind", "reads target labels", "further seeds", "best trialby source validation"):
        assert any("1†" in cell for row in table(Page(pages[0]), heading) for cell in row.values()), heading
    assert pages[1].count(note) == 1
    assert f'<li id="marks">{note}</li>' in pages[0]
    assert pages[0].count('<a href="#marks" title="trained with 2 images at once instead of 4') >= 5


def test_a_finalist_is_marked_with_its_repetitions_and_few_target_labels_are_counted(ledger, store, make_spec, begun):
    begun(make_spec(seeds=[0, 1], resources={"cpus": 1, "processes": 2}))
    first = trial(0, 0.62)
    few = {"images": 1, "seed": 0, "names": ["a", "b", "c"]}
    second = trial(1, 0.5)
    second = dataclasses.replace(second, config=second.config | {"data": second.config["data"] | {"few_shot": few}})
    for record in (first, second, replicate(2, first, 0.6, seed=1, micro_batch=1)):
        ledger.add_trial(record)
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    (row,) = markdown_table(text, "Repetitions over seeds")
    assert row["trial"] == "0† ★"
    assert [row["trial"] for row in markdown_table(text, "All trials")] == ["0 ★", "1‡", "2†"]
    # Two processes: batch normalization sees the images of both.
    assert "† trained with 2 images at once instead of 4" in text
    assert "‡ trained with the labels of 3 target images (trial 1)." in text


def test_the_pick_is_said_with_reason_seeds_and_context_in_both_files(pages):
    for text in (" ".join("".join(Page(pages[0]).text).split()), pages[1]):
        assert "Trial 1 (adversarial × dwd, lr 0.02) has the best source/val/miou, 62.0% with seed 0" in text
        assert "The runner-up, trial 0" in text
        assert "61.0 ± 1.4" in text
        assert "44.0 ± 1.4" in text
        assert "mean ± std of 2 further seeds (1, 2); 62.0 with seed 0, which chose it" in text
        assert "oracle, not used for choosing" in text
        assert "Example CPU" in text
        assert "camvid / day val" in text
        assert "camvid / dusk test" in text


def test_each_criterion_is_listed_with_its_regret(pages):
    rows = {row["criterion"]: row for row in markdown_table(pages[1], "What each criterion picks")}
    chosen, score, oracle = rows["source_validation (this sweep)"], rows["im"], rows["oracle"]
    assert (chosen["trial"], chosen["its value"], chosen["regret (points, oracle)"]) == ("1† ★", "62.0", "3.0")
    shown = ("rank correlation (oracle)", "95 % interval (oracle)", "candidates", "needed (oracle)")
    assert [chosen[column] for column in shown] == ["–", "–", "3", "18"]
    assert (score["trial"], score["its value"], score["reads target labels"]) == ("0", "0.9", "no")
    assert (oracle["trial"], oracle["regret (points, oracle)"], oracle["reads target labels"]) == ("2", "0.0", "yes")
    assert oracle["rank correlation (oracle)"] == "–"
    html_rows = table(Page(pages[0]), "reads target labels")
    assert [row["trial"] for row in html_rows] == [row["trial"] for row in rows.values()]


def test_a_collapsed_trial_is_listed_with_the_reason(pages):
    assert "trial 3: one class covers 99.0% of the target's pixels" in pages[1]


def test_failures_are_shown_with_class_and_line_and_cannot_inject_markup(pages):
    (row,) = markdown_table(pages[1], "Failures")
    assert row["class"] == "diverged"
    assert row["what happened"] == r"loss \| became NaN &lt;b>here&lt;/b>"
    (row,) = table(Page(pages[0]), "what happened")
    assert row["what happened"] == "loss | became NaN <b>here</b>"
    assert "<discriminator>" not in pages[0]


def test_the_infeasible_region_shows_obstacles_failing_values_and_retries(ledger, store, make_spec, begun):
    spec = begun(make_spec(constraints=["fps >= 30"]))
    slow = PROFILE | {"fps": 12.0}
    lr = "optimizer.lr"
    ledger.add_trial(trial(0, params={lr: 0.002}))
    ledger.add_trial(trial(1, params={lr: 0.09}, state=TrialState.FAILED, failure=FailureClass.DIVERGED))
    broken = "fps >= 30 is broken: 12"
    ledger.add_trial(trial(2, params={lr: 0.002}, state=TrialState.INFEASIBLE, profile=slow, error=broken))
    ledger.add_event("demo", "lost", "on node1:7: no memory", number=0, failure=FailureClass.OUT_OF_MEMORY)
    paths = write_report(ledger, store, spec.name)
    text, page = paths.markdown.read_text(encoding="utf-8"), Page(paths.html.read_text(encoding="utf-8"))
    (obstacle,) = markdown_table(text, "Infeasible region")
    assert (obstacle["why"], obstacle["proposals"], obstacle["trials"]) == ("fps >= 30 is broken: 12", "1", "2")
    low, high = table(page, "share failed%")
    assert (low["value"], low["trials"], low["share failed%"], low["how"]) == (
        "0.001 to 0.00316",
        "2",
        "50.0",
        "1 constraint",
    )
    assert (high["value"], high["share failed%"], high["of all%"], high["how"]) == (
        "0.0316 to 0.1",
        "100.0",
        "66.7",
        "1 diverged",
    )
    diverged, memory = table(page, "failed attempts")
    assert (memory["class"], memory["tried again"], memory["given up"]) == ("out of memory", "1", "0")
    assert (diverged["class"], diverged["tried again"], diverged["given up"]) == ("diverged", "0", "1")
    assert "figure-region" in page.ids


def test_the_comparison_of_finalists_is_shown_seed_by_seed(ledger, store, make_spec, begun):
    begun(make_spec(seeds=[0, 1, 2], finalists=2))
    first, second = trial(0, 0.62), trial(1, 0.60)
    records = [first, second]
    for parent, figures in ((first, (0.50, 0.51)), (second, (0.55, 0.54))):
        records += [replicate(0, parent, value, seed=seed) for seed, value in enumerate(figures, start=1)]
    for number, record in enumerate(records):
        ledger.add_trial(dataclasses.replace(record, number=number))
    paths = write_report(ledger, store, "demo")
    (row,) = table(Page(paths.html.read_text(encoding="utf-8")), "the advantage holds")
    assert (row["finalist"], row["against"], row["n"], row["further common seeds"]) == ("1", "0", "2", "1, 2")
    assert (row["ahead bysource_validation, mean"], row["the advantage holds"]) == ("4.0", "yes")
    assert "ahead by (source_validation, mean)" in paths.markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "finalists", [{"finalists": 2}, {"finalists_of_each": ["method.name"], "search": {"method.name": ["dacs", "fda"]}}]
)
def test_two_seeds_are_too_few_to_compare_finalists_and_that_is_said(ledger, store, make_spec, begun, finalists):
    begun(make_spec(seeds=[0, 1], **finalists))
    ledger.add_trial(trial(0))
    lines = " ".join(report_text.warning_lines(load_view(ledger, store, "demo")))
    assert "with `seeds: [0, 1]` the rank of the search decides" in lines


def test_a_sweep_that_selects_by_a_validator_shows_its_scores_over_seeds(ledger, store, make_spec, begun):
    begun(make_spec(selection="im", seeds=[0, 1, 2]))
    first = trial(0, metrics={"target/validator/im": 2.0})
    ledger.add_trial(first)
    ledger.add_trial(replicate(1, first, 0.6, metrics={"target/validator/im": 1.25}))
    ledger.add_trial(replicate(2, first, 0.6, seed=2, metrics={"target/validator/im": 1.75}))
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    (row,) = markdown_table(text.replace("### Rep", "## Rep"), "Repetitions over seeds")
    assert (row["im (mean ± std)"], row["n"], row["further seeds"]) == ("1.5 ± 0.35", "2", "1, 2")
    assert row["im (search seed: optimistic)"] == "2"
    assert (
        "has the best target/validator/im" in text or "only candidate that qualifies; its target/validator/im" in text
    )


@pytest.fixture
def pool(ledger, store):
    """Add candidates with what they predict for the target; the last one agrees most, and is poor on the source."""

    def add(*, collapsed=0):
        for number, wrong in enumerate((6, 4, 2, 0)):
            classes = np.tile(np.arange(4, dtype=np.uint8), 5)
            classes[5 * number : 5 * number + wrong] = 3
            share = 1.0 if number < collapsed else 0.4
            figures = {"target/largest_class_share": share}
            one = trial(number, 0.60 - number / 100, 0.40 + number / 100, metrics=figures)
            ledger.add_trial(one)
            store.trial(one).mkdir(parents=True)
            write_target_prediction(store.trial(one) / TARGET_PREDICTION, TargetPrediction(classes, 4, "same"))

    return add


def criterion_row(text, name):
    rows = markdown_table(text, "What each criterion picks")
    return next(row for row in rows if row["criterion"].startswith(name))


def test_a_sweep_that_chooses_by_agreement_shows_its_regret_beside_that_of_source_validation(
    ledger, store, make_spec, begun, pool
):
    begun(make_spec(selection="ensv"))
    pool()
    paths = write_report(ledger, store, "demo")
    text = paths.markdown.read_text(encoding="utf-8")
    own, source = criterion_row(text, "ensv"), criterion_row(text, "source_validation")
    assert (own["criterion"], own["trial"], own["regret (points, oracle)"]) == ("ensv (this sweep)", "3 ★", "0.0")
    assert (source["trial"], source["regret (points, oracle)"]) == ("0", "3.0")
    assert (own["rank correlation (oracle)"], own["candidates"]) == ("–", "4")
    assert "**Trial 3.**" in text
    # Figures that follow from the other trials are no change of the ledger.
    assert report_problems(paths.html, ledger.trials("demo"), may_be_older=False) == []


def test_the_figure_of_the_best_is_told_with_the_choice_taken_into_account(ledger, store, make_spec, begun, caplog):
    begun(make_spec(selection="source_validation"))
    generator = np.random.default_rng(0)
    for number in range(5):
        one = trial(number, 0.6 - number / 1000)
        ledger.add_trial(one)
        store.trial(one).mkdir(parents=True)
        right = generator.integers(60, 100, 20)
        counts = np.zeros((20, 2, 2), dtype=np.int32)
        counts[:, 0, 0], counts[:, 0, 1], counts[:, 1, 1] = right, 100 - right, 100
        images = "others" if number == 3 else "same"
        write_image_confusions(store.trial(one) / SOURCE_CONFUSIONS, ImageConfusions(counts, (), images))
    (store.trial(one) / SOURCE_CONFUSIONS).write_bytes(b"nothing")
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    row = criterion_row(text, "source_validation")
    low, high = map(float, row["95 % of draws %"].split(" to "))
    assert low < float(row["corrected %"]) < high
    assert re.search(r"best of 3 candidates by 20 images has [\d.]+ % source/val/miou on them, which flatters it", text)
    assert "trial 4 has no say in what the best is worth" in caplog.text
    assert criterion_row(text, "oracle")["corrected %"] == "–"


def test_what_chose_in_place_of_agreement_is_said_where_half_of_the_candidates_have_collapsed(
    ledger, store, make_spec, begun, pool
):
    begun(make_spec(selection="ensv"))
    pool(collapsed=2)
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    row = criterion_row(text, "ensv")
    assert row["criterion"] == "ensv (this sweep): refused, source_validation instead"
    assert (row["trial"], row["its value"]) == ("2 ★", "58.0")
    assert "ensv was refused: 2 of 4 fully trained candidates have collapsed on the target" in text


def test_classes_are_compared_on_both_splits_with_a_dash_for_absent_ones(pages):
    sky = next(row for row in markdown_table(pages[1], "Classes") if row["class"] == "Sky")
    assert sky["picked: trial 1† (source val)"] == "62.0"
    assert sky["upper_bound: trial 6 (source val)"] == "40.0"
    assert sky["picked: trial 1† (target, oracle)"] == "–"


def test_efficiency_names_the_conditions(pages):
    light, usual = markdown_table(pages[1], "Efficiency")
    assert (light["trials"], light["input (height x width)"], light["MACs G"]) == ("2", "32 x 64", "2")
    assert usual["trials"].startswith("0, 1, 3")
    assert "Measured on Example CPU, one image at a time, precision auto, computed in float32" in pages[1]


def test_the_pictures_of_pick_source_only_and_upper_bound_are_in_the_page(pages):
    page = Page(pages[0])
    assert len(page.loads) == 6
    shown = "".join(page.text)
    for title in ("target: picked: trial 1", "target: source only: trial 0", "source: upper_bound: trial 6"):
        assert title in shown


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (
            [1, 0, 3, 2],
            "4 candidates are too few to say whether source_validation orders them as the target does; about ",
        ),
        ([place ^ 1 for place in range(12)], None),
        (
            [7 * place % 12 for place in range(12)],
            "Whether source_validation orders candidates as the target does is open: rank correlation 0.24 over 12",
        ),
        (
            range(12, 0, -1),
            "The criterion is weak here: source_validation orders candidates with a rank correlation",
        ),
    ],
)
def test_what_is_known_of_the_order_of_a_criterion_is_said_with_its_interval(
    ledger, store, make_spec, begun, places, expected
):
    begun(make_spec())
    for number, place in enumerate(places):
        ledger.add_trial(trial(number, 0.5 + number / 100, 0.3 + place / 100))
    told = report_text.warning_lines(load_view(ledger, store, "demo"))
    lines = [line for line in told if "source_validation orders" in line]
    assert [line.startswith(expected or "") for line in lines] == ([True] if expected else [])
    assert all(("95 % interval -" in line) == (len(places) > 4) for line in lines)


def test_what_limits_the_trust_is_said(ledger, store, written):
    lines = " ".join(report_text.warning_lines(load_view(ledger, store, written.name)))
    assert "The choice loses 3.0 points of target mIoU" in lines
    assert "1 trial failed" in lines
    assert "Latency and fps were measured on Example CPU" in lines
    assert "one seed only" not in lines
    assert "not finished" not in lines


def test_a_single_seed_and_a_missing_baseline_are_said(ledger, store, make_spec, begun):
    begun(make_spec())
    ledger.add_trial(trial(0))
    lines = " ".join(report_text.warning_lines(load_view(ledger, store, "demo")))
    assert "one seed only" in lines
    assert "No source-only network" in lines
    assert "1 of 3 search trials" in lines


def test_a_value_at_the_end_of_its_range_is_said(ledger, store, make_spec, begun):
    begun(make_spec())  # optimizer.lr from 1e-3 to 1e-1, logarithmic
    ledger.add_trial(trial(0, params={"optimizer.lr": 0.095}))
    assert any(
        "0.095, lies at the upper end" in line for line in report_text.warning_lines(load_view(ledger, store, "demo"))
    )
    spec = load_view(ledger, store, "demo").spec
    assert report_text.edge(spec, "optimizer.lr", 0.0011) == "lower end"
    assert report_text.edge(spec, "optimizer.lr", 0.01) is None
    assert report_text.edge(spec, "batch_size", 4) is None


def test_a_replicate_that_collapsed_is_said(ledger, store, make_spec, begun):
    begun(make_spec(seeds=[0, 1]))
    first = trial(0)
    ledger.add_trial(first)
    ledger.add_trial(replicate(1, first, 0.6, metrics={"target/largest_class_share": 0.99}))
    lines = report_text.warning_lines(load_view(ledger, store, "demo"))
    assert any(line.startswith("With seed 1 the picked configuration looks collapsed (trial 1)") for line in lines)


def test_an_oracle_sweep_is_marked(ledger, store, make_spec, begun):
    begun(make_spec(selection="oracle"))
    for number in range(3):
        ledger.add_trial(trial(number, 0.5 + 0.01 * number, 0.5 - 0.01 * number))
    paths = write_report(ledger, store, "demo")
    text = paths.markdown.read_text(encoding="utf-8")
    assert "In all tables: mIoU and IoU in %" in text
    assert text.count("chosen with target labels (oracle)") == 1
    assert "oracle, used for choosing" in text
    assert "Target labels were used to choose" in text
    assert "oracle, not used" not in text + paths.html.read_text(encoding="utf-8")


def test_a_sweep_without_trials_has_a_report(ledger, store, make_spec, begun):
    begun(make_spec())
    paths = write_report(ledger, store, "demo")
    page = Page(paths.html.read_text(encoding="utf-8"))
    text = " ".join("".join(page.text).split())
    assert "No pick yet" in text
    assert "no search trial yet" in text
    assert "No trial has reported yet" in text
    assert "none" not in paths.markdown.read_text(encoding="utf-8").split("## All trials")[1].split("##")[0].lower()


def test_a_running_sweep_has_a_report_that_says_what_is_missing(ledger, store, make_spec, begun):
    begun(make_spec())
    ledger.add_trial(trial(0, metrics={}, state=TrialState.QUEUED, step=0, profile={}))
    attempt = ledger.start_attempt("demo", 0, worker="host:1").attempt
    for step, value in ((1, 0.2), (2, 0.3)):
        metrics = {"source/val/miou": value}
        ledger.add_point("demo", 0, attempt=attempt, step=step, timestamp=1.0, metrics=metrics)
    ledger.add_trial(trial(1, 0.5, state=TrialState.QUEUED, step=0))
    with Lease(ledger, "demo").held(lambda: 0.0):
        driven = load_view(ledger, store, "demo")
    view = load_view(ledger, store, "demo")
    assert view.curves == {0: [(1, 0.2), (2, 0.3)], 1: []}
    assert any("2 of 2 trials still to end" in line for line in report_text.warning_lines(view))
    assert any("sweeps resume demo" in line for line in report_text.warning_lines(view))
    assert not any("sweeps resume demo" in line for line in report_text.warning_lines(driven))
    paths = write_report(ledger, store, "demo")
    assert 'id="figure-curves"' in paths.html.read_text(encoding="utf-8")
    assert "1 running" in paths.markdown.read_text(encoding="utf-8")


def test_damaged_result_files_are_left_out(ledger, store, written, records, caplog):
    (store.trial(records[1]) / "result.json").write_text('{"classes": [')
    (store.trial(records[0]) / "result.json").write_text("[]")
    view = load_view(ledger, store, written.name)
    assert 1 not in view.results
    assert 0 not in view.results
    assert "cannot be read" in caplog.text
    write_report(ledger, store, written.name)


def test_a_space_that_no_longer_fits_costs_the_importance_and_not_the_report(ledger, store, make_spec, begun, caplog):
    begun(make_spec())
    ledger.add_trial(trial(0, params={"batch_size": 4}))
    assert load_view(ledger, store, "demo").importance == {}
    assert "no parameter importance" in caplog.text


def test_importance_is_that_of_the_search(ledger, store, make_spec, begun):
    spec = make_spec(search={"optimizer.lr": {"low": 1e-3, "high": 1, "log": True}, "loss.auxiliary_weight": "default"})
    begun(spec)
    for number in range(20):
        params = {"optimizer.lr": 0.01 + 0.02 * number, "loss.auxiliary_weight": 0.1 + 0.04 * (number * 7 % 20)}
        ledger.add_trial(trial(number, 0.3 + 0.01 * number, params=params))
    view = load_view(ledger, store, "demo")
    assert next(iter(view.importance)) == "optimizer.lr"
    paths = write_report(ledger, store, "demo")
    rows = markdown_table(paths.markdown.read_text(encoding="utf-8"), "Importance of the parameters")
    assert [row["parameter"] for row in rows] == list(view.importance)
    assert 'id="figure-importance"' in paths.html.read_text(encoding="utf-8")


def test_a_sweep_file_of_another_version_is_refused_in_one_line(ledger, store, make_spec):
    ledger.create_sweep("demo", spec=make_spec().canonical() | {"flavor": 1})
    with pytest.raises(ConfigError, match=r"demo.*flavor") as raised:
        load_view(ledger, store, "demo")
    assert "\n" not in str(raised.value)


def test_a_report_replaces_the_old_one_and_leaves_no_other_file(ledger, store, written):
    first = write_report(ledger, store, written.name)
    before = first.html.stat().st_ino
    second = write_report(ledger, store, written.name)
    assert second == first
    assert second.html.stat().st_ino != before
    assert {path.name for path in first.html.parent.glob("*report*")} == {
        "report.html",
        "report.md",
        "report.proof.json",
    }
    assert not list(first.html.parent.glob(".report*"))


def test_an_unknown_sweep_is_refused(ledger, store):
    with pytest.raises(ConfigError, match="no sweep 'nothing'"):
        write_report(ledger, store, "nothing")


def test_lower_limits_on_fps_are_drawn_as_upper_limits_on_latency(make_spec):
    spec = make_spec(constraints=["fps >= 40", "macs <= 5e9", "latency_ms >= 1"])
    bounds = cost_bounds(spec)
    assert [(bound.cost, bound.limit) for bound in bounds] == [("latency_ms", 25.0), ("macs", 5e9)]


def test_the_terminal_table_marks_the_pick(ledger, store, written):
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(summary(load_view(ledger, store, written.name), width=console.width))
    text = console.export_text()
    assert "1† ★" in text
    assert "† trained with 2 images at once instead of 4: batch normalization saw fewer images (trial 1)." in text
    assert "0 ★" not in text
    assert "(oracle)" in text
    assert "9 trials: 7 complete, 1 pruned, 1 failed" in text


HOSTILE = "<script>alert(1)</script> | `x [a](http://b) [/bold]\n# Title"


def test_names_questions_and_errors_of_others_change_no_page_and_no_terminal(ledger, store, make_spec):
    spec = make_spec(question=HOSTILE)
    ledger.create_sweep(spec.name, spec=spec.canonical())
    record = trial(0, method="source_only")
    ledger.add_trial(dataclasses.replace(record, kind=TrialKind.REFERENCE, name=HOSTILE))
    ledger.update_trial("demo", 0, state=TrialState.FAILED, failure=FailureClass.ERROR, error=HOSTILE)
    paths = write_report(ledger, store, "demo")
    page, markdown = paths.html.read_text(), paths.markdown.read_text()
    assert "<script>alert" not in page
    outside = markdown.partition("```yaml")[0]
    assert outside.count("&lt;script>alert(1)&lt;/script>") >= 3
    assert "<script>" not in outside
    assert "](http://b)" not in outside.replace(r"\[a](", "")
    assert not re.search(r"^# Title|(?<!\\)`x", outside, re.MULTILINE)
    view = load_view(ledger, store, "demo")
    shown = Console(width=200, file=io.StringIO())
    shown.print(summary(view, width=200))
    assert "demo" in shown.file.getvalue()


def test_a_sweep_file_with_backticks_stays_one_block():
    assert markdown_block("a: '```'\n", "yaml") == "````yaml\na: '```'\n````"
    assert markdown_code("`") == "`` ` ``"


def test_what_each_method_is_worth_is_told_over_seeds_and_beside_the_choices_of_an_oracle(
    ledger, store, make_spec, begun
):
    search = {"method.name": ["dacs", "source_only"], "optimizer.lr": {"low": 0.01, "high": 0.1}}
    upper = {"upper": {"method.name": "target_only", "optimizer.lr": 0.01}}
    begun(
        make_spec(
            search=search, references=upper, repeat_references=True, seeds=[0, 1, 2], finalists_of_each=["method.name"]
        )
    )
    speed = {"source_only": 0.1, "dacs": 0.25, "target_only": 0.1}

    def made(record_of, number, source, target, method, **changes):
        metrics = {"train/seconds_per_step": speed[method], "oracle/target/miou_under": target / 2}
        arguments = (number, changes.pop("parent"), source) if record_of is replicate else (number, source)
        record = record_of(*arguments, target, method=method, metrics=metrics, **changes)
        points = [(50, {"oracle/target/miou": target + 0.1}), (100, record.metrics)]
        ledger.add_trial(record, points=[Point(0, number, step, 0.0, metrics) for step, metrics in points])
        return record

    bound = made(trial, 0, 0.5, 0.60, "target_only", kind=TrialKind.REFERENCE, name="upper")
    plain = made(trial, 1, 0.6, 0.30, "source_only")
    made(trial, 2, 0.5, 0.45, "dacs")  # better on the target, which nothing may know
    best = made(trial, 3, 0.7, 0.35, "dacs")
    number = 4
    for parent, figures in ((bound, (0.58, 0.62)), (plain, (0.28, 0.32)), (best, (0.35, 0.39))):
        for seed, target in enumerate(figures, start=1):
            method = parent.config["method"]["name"]
            made(replicate, number, 0.6, target, method, parent=parent, seed=seed)
            number += 1
    paths = write_report(ledger, store, "demo")
    rows = {row["method"]: row for row in table(Page(paths.html.read_text(encoding="utf-8")), "× baseline")}
    assert list(rows) == ["reference: upper", "dacs", "source_only"]
    row = rows["dacs"]
    assert (row["trial"], row["nfurther seeds"]) == ("3 ★", "2")
    assert row["target mIoU%, mean ± std, oracle"] == "37.0 ± 2.8"
    assert row["gain over the baselinepoints, same seeds, oracle"] == "7.0 ± 0.0"
    assert row["closed%, oracle"] == "23.3"  # (.37 - .30) / (.60 - .30)
    assert (row["s per step"], row["× baseline"]) == ("0.25", "2.5")
    assert row["under-represented%, classes, oracle"] == "18.5"
    assert row["target mIoU%, search seed, oracle"] == "35.0"
    assert row["best checkpoint%, oracle choice"] == "47.0"
    assert row["best of the search%, oracle choice"] == "45.0"
    assert rows["source_only"]["gain over the baselinepoints, same seeds, oracle"] == "–"
    text = paths.markdown.read_text(encoding="utf-8")
    assert "| dacs | 3 ★ | 2 | 37.0 ± 2.8 |" in text
    assert "| training seeds | 0, 1, 2; 1 finalist of each method.name and the references |" in text


def test_a_method_on_another_one_has_a_row_for_each_and_what_else_is_compared_is_named():
    paths = ["method.name", "method.host.name", "model.name", "batch_size"]

    def row(number, host, model):
        config = {"method": {"name": "mic", "host": {"name": host}}, "model": {"name": model}}
        params = {"method.name": "mic", "method.host.name": host, "model.name": model, "batch_size": 4}
        return dataclasses.replace(trial(number), config=config, params=params)

    trials = [row(0, "dacs", "fast_scnn"), row(1, "fda", "fast_scnn"), row(2, "dacs", "bisenet_v1")]
    found = standing_rows(trials, ranked=[0, 1, 2], baseline=None, upper_bound=None, curves={}, paths=paths)
    assert [row.label for row in found] == [
        "mic × dacs, model fast_scnn, batch_size 4",
        "mic × fda, model fast_scnn, batch_size 4",
        "mic × dacs, model bisenet_v1, batch_size 4",
    ]


def test_a_method_without_further_seeds_stands_last_and_is_not_compared_with_means_over_them():
    plain, adapted, alone = (trial(number, 0.6, target) for number, target in enumerate((0.30, 0.35, 0.50)))
    bound = trial(3, 0.5, 0.60, method="target_only", kind=TrialKind.REFERENCE, name="upper")
    adapted, alone = (
        dataclasses.replace(record, config={"method": {"name": name}})
        for record, name in ((adapted, "dacs"), (alone, "lse"))
    )
    trials = [plain, adapted, alone, bound]
    further = [
        replicate(4 + index, parent, 0.6, parent.metrics["oracle/target/miou"])
        for index, parent in enumerate((plain, adapted, bound))
    ]

    def closed(records):
        rows = standing_rows(records, ranked=[0, 1, 2], baseline=plain, upper_bound=bound, curves={})
        return [(row.trial.number, row.closed) for row in rows]

    assert closed(trials) == [(3, 1), (2, pytest.approx(2 / 3)), (1, pytest.approx(1 / 6)), (0, 0)]
    assert closed([*trials, *further]) == [(3, 1), (1, pytest.approx(1 / 6)), (0, 0), (2, None)]


@pytest.mark.parametrize("is_alone", [True, False])
def test_costs_that_were_not_measured_alone_are_not_said_to_be(ledger, store, make_spec, begun, is_alone):
    begun(make_spec())
    ledger.add_trial(trial(0, profile=PROFILE | {"latency_reliable": float(is_alone)}))
    paths = write_report(ledger, store, "demo")
    for path in (paths.html, paths.markdown):
        text = path.read_text(encoding="utf-8")
        assert (", alone on the device" in text) == is_alone
        assert ("; not always alone on the device or not steadily, see ¶" in text) != is_alone


def test_marks_stand_in_one_order_also_where_repetitions_add_some(ledger, store, make_spec, begun):
    begun(make_spec(seeds=[0, 1]))
    first = trial(0, profile=PROFILE | {"latency_reliable": 0.0})
    ledger.add_trial(first)
    repeated = replicate(1, first, 0.5, seed=1, micro_batch=2, profile=first.profile)
    ledger.add_trial(repeated)
    (row,) = table(Page(write_report(ledger, store, "demo").html.read_text(encoding="utf-8")), "further seeds")
    assert row["trial"] == "0†¶ ★"


def test_a_discriminator_without_a_signal_is_told_beside_its_trial_and_of_the_pick(ledger, store, make_spec, begun):
    begun(make_spec())
    names = ("train/discriminator_accuracy_source", "train/discriminator_accuracy_target")
    curves = {0: [(0.7, 0.8), (1.0, 0.992), (1.0, 1.0), (0.995, 0.999)], 1: [(0.5, 0.5)] * 4, 2: [(0.8, 0.7)] * 4}
    for number, curve in curves.items():
        points = [
            Point(number, 1, 25 * report, 0.0, dict(zip(names, pair, strict=True)))
            for report, pair in enumerate(curve, 1)
        ]
        ledger.add_trial(trial(number, 0.6 - 0.1 * number), points=points)
    paths = write_report(ledger, store, "demo")
    text = paths.markdown.read_text(encoding="utf-8")
    notes = [row["notes"] for row in markdown_table(text, "All trials")]
    assert notes[0].startswith("the discriminator was always right at its last 3 reports (right on 99.5% of the source")
    assert notes[1].startswith("the discriminator was at chance at its last 3 reports and never better")
    assert notes[2] == ""
    assert f"- Of the picked trial, {notes[0]}." in text
    assert notes[1] in "".join(Page(paths.html.read_text(encoding="utf-8")).text)


def test_a_reconstruction_is_marked_wherever_its_method_stands(ledger, store, make_spec, begun):
    begun(make_spec())
    ledger.add_trial(trial(0, 0.5, method="joint"))
    ledger.add_trial(trial(1, 0.6, method="naae"))
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    assert [row["method"] for row in markdown_table(text, "Methods")] == ["joint", "naae‖"]
    assert [row["trial"] for row in markdown_table(text, "All trials")] == ["0", "1‖ ★"]
    assert "‖ naae is a reconstruction: neither code nor full text of its paper could be had" in text


def test_gains_are_told_against_the_reference_that_the_file_names(ledger, store, make_spec, begun):
    references = {"plain": {"method.name": "source_only"}, "augmented": {"method.name": "source_only", "batch_size": 4}}
    begun(make_spec(references=references, baseline="augmented"))
    for number, (name, source, target) in enumerate((("plain", 0.7, 0.2), ("augmented", 0.6, 0.3))):
        ledger.add_trial(trial(number, source, target, method="source_only", kind=TrialKind.REFERENCE, name=name))
    view = load_view(ledger, store, "demo")
    assert (view.source_only.name, view.baseline.name) == ("plain", "augmented")
    text = write_report(ledger, store, "demo").markdown.read_text(encoding="utf-8")
    assert "over reference augmented (trial 1) with the same seeds" in text


def test_a_baseline_is_a_reference(make_spec):
    with pytest.raises(LocatedError, match=r"there is no reference 'upp'.*did you mean 'upper'"):
        make_spec(references={"upper": {"method.name": "target_only"}}, baseline="upp")
