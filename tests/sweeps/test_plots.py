from dataclasses import fields

import pytest
from records import PROFILE, trial

from sweeps.reports import cost_plots, plots, standing_plots
from sweeps.reports.standing_tables import StandingRow
from sweeps.selection.seeds import mean_interval
from sweeps.trial import TrialKind, TrialState


@pytest.fixture
def trials():
    light = PROFILE | {"macs": 1e9, "latency_ms": 10.0, "num_parameters": 5e6}
    return [
        trial(0, 0.60, 0.40, method="source_only"),
        trial(1, 0.62, 0.45, discriminator="dwd"),
        trial(2, 0.55, 0.42, discriminator="dwd", profile=light),
        trial(3, 0.70, 0.10, discriminator="fcd"),
        trial(4, 0.40, 0.55, method="target_only", kind=TrialKind.REFERENCE, name="upper_bound"),
        trial(5, 0.30, 0.20, state=TrialState.PRUNED, step=30),
    ]


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_the_first_view_shows_the_target_in_per_cent_against_latency_and_says_oracle(trials):
    figure = cost_plots.pareto_figure(trials, picked=1, rejected=[3])
    assert figure.layout.yaxis.title.text == "target mIoU, oracle (%)"
    assert figure.layout.xaxis.title.text.startswith("latency")
    visible = [trace for trace in figure.data if trace.visible]
    (dwd,) = [trace for trace in visible if trace.name == "adversarial × dwd"]
    assert list(dwd.y) == pytest.approx([45, 42])
    assert list(dwd.x) == [20, 10]


def test_the_drawn_front_leaves_rejected_trials_and_references_out(trials):
    front = named(cost_plots.pareto_figure(trials, rejected=[3]), "Pareto front")[0]
    assert list(zip(front.x, front.y, strict=True)) == [(10, pytest.approx(42)), (20, pytest.approx(45))]


def test_every_menu_entry_shows_the_traces_of_its_own_view_only(trials):
    figure = cost_plots.pareto_figure(trials, picked=1)
    buttons = figure.layout.updatemenus[0].buttons
    shown = [button.args[0]["visible"] for button in buttons]
    assert all(len(flags) == len(figure.data) for flags in shown)
    assert [sum(flags) for flags in zip(*shown, strict=True)] == [1] * len(figure.data)
    assert {button.args[1]["yaxis.title.text"] for button in buttons} == set(plots.QUALITIES.values())


def test_the_pick_is_starred_and_rejected_trials_are_hollow(trials):
    figure = cost_plots.pareto_figure(trials, picked=1, rejected=[3])
    star = named(figure, "picked: trial 1")[0]
    assert (star.marker.symbol, list(star.y)) == ("star", [pytest.approx(45)])
    assert list(named(figure, "adversarial × fcd")[0].marker.color) == ["white"]
    assert "white" not in named(figure, "adversarial × dwd")[0].marker.color


def test_references_are_lines_and_what_a_constraint_forbids_is_shaded(trials):
    bound = cost_plots.Bound("macs", 2e9, "macs <= 2e+09")
    figure = cost_plots.pareto_figure(trials, bounds=[bound])
    (reference,) = figure.layout.shapes
    assert reference.y0 == reference.y1 == pytest.approx(55)
    macs = next(b for b in figure.layout.updatemenus[0].buttons if "(oracle) against multiply" in b.label)
    (region,) = [shape for shape in macs.args[1]["shapes"] if shape["type"] == "rect"]
    assert region["x0"] == pytest.approx(2)
    assert region["x1"] > 3
    assert any("macs &lt;= 2e+09" in note["text"] for note in macs.args[1]["annotations"])


def test_the_source_is_drawn_where_there_are_no_target_figures():
    figure = cost_plots.pareto_figure([trial(0, metrics={"oracle/target/miou": None})])
    assert figure.layout.yaxis.title.text == "source validation mIoU (%)"


def test_hover_texts_carry_the_configuration_and_escape_it(trials):
    nasty = trial(9, params={"model.name": "<script>alert(1)</script>", "optimizer.lr": 0.02})
    (text,) = named(cost_plots.pareto_figure([nasty]), "adversarial × fcd")[0].hovertext
    assert "lr 0.02" in text
    assert "trial 9" in text
    assert "<script>" not in text
    assert (
        "<script>" not in plots.to_html(cost_plots.pareto_figure([nasty]), element="x").split("window.PLOTLYENV", 1)[1]
    )


@pytest.mark.parametrize("trials", [[], [trial(0, state=TrialState.RUNNING)], [trial(0, profile={})]])
def test_there_is_no_front_without_a_candidate_that_has_cost_and_quality(trials):
    assert cost_plots.pareto_figure(trials) is None


def test_one_candidate_is_enough_for_a_front():
    assert len(cost_plots.pareto_figure([trial(0)]).data) > 0


def test_the_criterion_figure_needs_two_candidates_with_both_figures(trials):
    assert cost_plots.criterion_figure(trials[:1]) is None
    assert cost_plots.criterion_figure([trials[0], trials[4]]) is None
    figure = cost_plots.criterion_figure(trials, picked=1)
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers+text") == 4


def test_curves_of_pruned_trials_are_dashed(trials):
    figure = plots.learning_curves_figure(trials, {1: [(50, 0.3), (100, 0.62)], 5: [(30, 0.3)]})
    solid, dashed = figure.data[:2]
    assert (solid.line.dash, dashed.line.dash) == ("solid", "dash")
    assert list(solid.x) == [50, 100]
    assert list(solid.y) == pytest.approx([30, 62])


def test_there_are_no_curves_without_points(trials):
    assert plots.learning_curves_figure(trials, {}) is None
    assert plots.learning_curves_figure(trials, {0: []}) is None


def test_parallel_axes_put_numbers_to_scale_and_missing_parameters_at_their_own_tick():
    trials = [
        trial(0, params={"optimizer.lr": 1e-4, "method.name": "source_only"}),
        trial(1, params={"optimizer.lr": 1e-2, "method.name": "adversarial", "method.lambda_adv": 0.5}),
        trial(2, params={"optimizer.lr": 1e-3, "method.name": "adversarial", "method.lambda_adv": 1.0}),
    ]
    lr, method, weight, quality = plots.parallel_figure(trials).data[0].dimensions
    assert [lr.label, method.label, weight.label] == ["lr", "method", "lambda_adv"]
    assert list(lr.values) == pytest.approx([-4, -2, -3])
    assert list(method.ticktext) == ["adversarial", "source_only"]
    assert weight.ticktext[0] == "n/a"
    assert weight.values[0] == weight.tickvals[0] < min(weight.values[1:])
    assert list(quality.values) == pytest.approx([60, 60, 60])


def test_parallel_axes_need_two_candidates():
    assert plots.parallel_figure([trial(0)]) is None


def test_importance_bars_have_the_largest_on_top():
    (bar,) = plots.importance_figure({"a": 0.2, "b": 0.7, "c": 0.1}).data
    assert list(bar.y) == ["c", "a", "b"]
    assert list(bar.x) == pytest.approx([10, 20, 70])
    assert plots.importance_figure({}) is None


def test_the_class_map_has_a_line_per_network_and_a_column_per_class():
    rows = {"Sky": (0.9, None), "Road": (0.8, 0.7)}
    (heat,) = plots.class_figure(rows, ["picked", "source only"]).data
    assert [list(line) for line in heat.z] == [[pytest.approx(90), pytest.approx(80)], [None, pytest.approx(70)]]
    assert list(heat.x) == ["Sky", "Road"]
    assert plots.class_figure([], []) is None


def test_methods_keep_one_color_and_one_shape_each(trials):
    styles = plots.method_colors(trials)
    assert len(set(styles.values())) == len(styles) == 4


def test_no_button_of_a_figure_sends_data_away(trials):
    text = plots.to_html(cost_plots.pareto_figure(trials), element="x")
    assert '"modeBarButtonsToRemove": ["lasso2d", "select2d", "sendChartToCloud", "sendDataToCloud"]' in text


def test_the_script_of_the_figures_can_stand_inside_a_page():
    script = plots.plotly_script()
    assert "plotly.js v" in script[:500]
    assert "</script" not in script.lower()


def standing(label, number, values):
    target = mean_interval(values) if values else None
    empty = dict.fromkeys(field.name for field in fields(StandingRow))
    return StandingRow(
        **empty
        | {
            "label": label,
            "trial": trial(number),
            "seeds": tuple(range(1, 1 + len(values))),
            "values": tuple(values),
            "target": target,
        }
    )


def test_methods_stand_below_each_other_the_best_on_top_with_their_intervals_and_seeds():
    rows = [
        standing("reference: upper", 3, [0.5, 0.52]),
        standing("dacs", 1, [0.4, 0.44]),
        standing("base", 2, [0.3, 0.3]),
    ]
    figure = standing_plots.standing_figure([*rows, standing("alone", 4, [])], baseline=2, upper_bound=3)
    (seeds,) = named(figure, "one seed")
    (means,) = named(figure, "mean and 95 % interval over seeds")
    assert list(means.y) == ["base", "dacs", "reference: upper"]
    assert list(means.x) == pytest.approx([30, 42, 51])
    # Student's factor for two values: 12.706 standard errors, and the standard error is 2 points.
    assert list(means.error_x.array) == pytest.approx([0, 25.412, 12.706], abs=1e-2)
    assert list(zip(seeds.y, seeds.x, strict=True))[2:4] == [("dacs", pytest.approx(40)), ("dacs", pytest.approx(44))]
    lines = {note.text: shape.x0 for note, shape in zip(figure.layout.annotations, figure.layout.shapes, strict=True)}
    assert lines == {"baseline": pytest.approx(30), "upper bound": pytest.approx(51)}


def test_without_further_seeds_methods_are_not_drawn():
    assert standing_plots.standing_figure([standing("dacs", 1, [])], baseline=None, upper_bound=None) is None
