# ruff: noqa: E501 - a table of messages reads best with one case per line
import json
from pathlib import Path

import fakes
import pytest
import yaml

from segda.config import TrainConfig
from segda.config_problems import LocatedError
from segda.errors import ConfigError
from segda.methods import METHODS
from segda.schema_keys import keys_of
from sweeps.checks.makers import load_spec
from sweeps.file.schema import sweep_schema
from sweeps.file.spec import Constraint, SweepSpec
from sweeps.paths import value_at, with_values

SWEEP = """\
name: camvid_day_to_dusk
question: Which method is best?
base:
  data:
    source: {dataset: camvid, domain: day}
    target: {dataset: camvid, domain: dusk}
    height: 96
    width: 128
  method: {lambda_adv_auxiliary: 1e-4}
  steps: 900
  report_every: 100
  oracle: end
search:
  method.name: [source_only, adversarial]
  method.discriminator: {choices: [fcd, tfd, dwd], when: {method.name: adversarial}}
  method.lambda_adv: {low: 1e-4, high: 1e-2, log: true, when: {method.name: [adversarial]}}
  optimizer.lr: {low: 5e-3, high: 5e-2, log: true}
  optimizer.weight_decay: default
  model.backbone: [resnet18, resnet34]
  schedule.warmup_steps: {low: 0, high: 50, step: 10}
objectives:
  - {metric: source/val/miou, direction: maximize}
  - {metric: macs, direction: minimize}
constraints: ["fps >= 30", "macs <= 25e9"]
scheduler: {name: asha, reduction_factor: 3, min_steps: 100}
budget: {trials: 12, hours: 1.5, concurrency: 2}
seeds: [3, 1]
references:
  upper_bound: {method.name: target_only, optimizer.lr: 0.025}
"""


@pytest.fixture
def load(tmp_path):
    def load(*changes, **options):
        text = SWEEP
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            text = text.replace(old, new)
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return load_spec(path, **options)

    return load


def test_the_loss_its_settings_class_weights_and_sampling_are_searched_together(load):
    spec = load(
        "  optimizer.weight_decay: default\n",
        "  loss.name: [cross_entropy, focal]\n"
        "  loss.gamma: {low: 1, high: 4, when: {loss.name: focal}}\n"
        "  loss.class_weights: default\n"
        "  data.sampling.name: default\n"
        "  data.sampling.ratio: {low: 2, high: 20, log: true, when: {data.sampling.name: rare_class}}\n",
    )
    assert spec.search["loss.class_weights"].choices == ("none", "median_frequency", "enet", "inverse_sqrt")
    params = {"method.name": "source_only", "optimizer.lr": 0.01, "loss.class_weights": "enet"}
    params |= {"data.sampling.name": "rare_class", "data.sampling.ratio": 8.0}
    focal = spec.train_config(params | {"loss.name": "focal", "loss.gamma": 3.0}, seed=1)
    assert (focal.loss.name, focal.loss.gamma, focal.loss.class_weights) == ("focal", 3.0, "enet")
    assert (focal.data.sampling.name, focal.data.sampling.ratio) == ("rare_class", 8.0)
    assert spec.train_config(params | {"loss.name": "cross_entropy"}, seed=1).loss.name == "cross_entropy"


def test_the_few_images_of_a_sweep_may_have_names(load):
    spec = load("    width: 128", "    width: 128\n    few_shot: {names: [b, a]}", "[source_only,", "[joint,")
    config = spec.train_config({"method.name": "joint", "optimizer.lr": 0.01}, seed=1)
    assert config.data.few_shot.names == ("b", "a")


def test_a_sweep_file_is_read(load):
    spec = load()
    assert spec.name == "camvid_day_to_dusk"
    assert spec.search["method.lambda_adv"].when == {"method.name": ("adversarial",)}
    assert (spec.search["optimizer.lr"].low, spec.search["optimizer.lr"].high) == (0.005, 0.05)
    assert [str(item) for item in spec.constraints] == ["fps >= 30", "macs <= 2.5e+10"]
    assert (spec.scheduler.name, spec.scheduler.metric) == ("asha", "source/val/miou")
    assert (spec.budget.trials, spec.budget.hours, spec.budget.concurrency) == (12, 1.5, 2)


def test_what_is_left_out_has_defaults(make_spec):
    spec = make_spec()
    assert [(item.metric, item.direction) for item in spec.objectives] == [("source/val/miou", "maximize")]
    assert (spec.selection, spec.seeds, spec.finalists, spec.references) == ("source_validation", (0,), 1, {})
    assert spec.tracking.uri is None


def test_default_stands_for_the_range_beside_the_field(load):
    item = load().search["optimizer.weight_decay"]
    assert (item.low, item.high, item.log) == (1e-6, 1e-2, True)


def test_a_declared_range_can_have_a_condition(load):
    spec = load("{low: 1e-4, high: 1e-2, log: true, when", "{when")
    item = spec.search["method.lambda_adv"]
    assert (item.low, item.high, item.log, item.when) == (1e-4, 1e-1, True, {"method.name": ("adversarial",)})


def test_a_whole_number_field_is_searched_in_whole_numbers(load):
    assert load().search["schedule.warmup_steps"].integer
    assert not load().search["optimizer.lr"].integer


def test_a_condition_on_a_fixed_value_that_holds_is_no_condition(load):
    spec = load("{low: 5e-3, high: 5e-2, log: true}", "{low: 5e-3, high: 5e-2, when: {optimizer.name: [sgd, adam]}}")
    assert spec.search["optimizer.lr"].when == {}


def test_a_trial_is_base_with_its_parameters_and_seed(load):
    config = load().train_config(
        {"method.name": "adversarial", "method.lambda_adv": 0.002, "optimizer.lr": 0.01}, seed=5
    )
    assert isinstance(config, TrainConfig)
    assert (config.seed, config.steps, config.optimizer.lr) == (5, 900, 0.01)
    assert (config.method.lambda_adv, config.method.lambda_adv_auxiliary) == (0.002, 1e-4)


def test_settings_of_another_method_are_not_seen(load):
    config = load().train_config({"method.name": "source_only"}, seed=0)
    assert config.method.name == "source_only"
    assert not hasattr(config.method, "lambda_adv_auxiliary")


def test_wrong_parameters_are_told_with_the_sweep(load):
    with pytest.raises(ConfigError, match=r"^sweep camvid_day_to_dusk: optimizer.lr: must be greater than 0, got -1$"):
        load().train_config({"method.name": "source_only", "optimizer.lr": -1}, seed=0)
    with pytest.raises(ConfigError, match=r"method.lambda_adv: unknown key"):
        load().train_config({"method.name": "source_only", "method.lambda_adv": 0.1}, seed=0)


def test_building_a_trial_leaves_the_sweep_as_it_was(load):
    spec = load()
    before = json.dumps(spec.base)
    spec.train_config({"method.name": "source_only", "optimizer.lr": 0.01}, seed=4)
    assert json.dumps(spec.base) == before


def test_roots_are_filled_in_and_made_absolute(load):
    spec = load(data_roots={"camvid": Path("somewhere")})
    config = spec.train_config({"method.name": "source_only"}, seed=0)
    assert config.data.source.root == config.data.target.root == Path.cwd() / "somewhere"


def test_a_root_in_the_file_is_made_absolute_and_gives_way_to_the_option(load):
    change = ("{dataset: camvid, domain: day}", "{dataset: camvid, domain: day, root: here}")
    assert load(*change).base["data"]["source"]["root"] == str(Path.cwd() / "here")
    assert load(*change, data_roots={"camvid": Path("/there")}).base["data"]["source"]["root"] == "/there"


def test_a_root_of_an_unknown_data_set_is_refused(load):
    with pytest.raises(ConfigError, match=r"unknown data set 'camvod' \(did you mean 'camvid'\?\)"):
        load(data_roots={"camvod": Path("x")})


def test_plain_data_make_an_equal_sweep_again(load):
    spec = load(data_roots={"camvid": Path("x")})
    again = SweepSpec.model_validate(json.loads(json.dumps(spec.canonical())))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials: 12", "trials: 20"),
        ("hours: 1.5, ", ""),
        ("seeds: [3, 1]", "seeds: [3, 1, 2]"),
        ("question: Which", "question: What"),
        ("optimizer.lr: 0.025", "optimizer.lr: 0.02"),
        ("  report_every", "  device: cpu\n  report_every"),
    ],
)
def test_a_resumed_sweep_may_differ_in_what_decides_nothing(load, old, new):
    assert load(old, new).fingerprint() == load().fingerprint()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("high: 5e-2", "high: 6e-2"),
        ("steps: 900", "steps: 1000"),
        ("fps >= 30", "fps >= 31"),
        ("seeds: [3, 1]", "seeds: [4, 1]"),
        ("seeds: [3, 1]", "seeds: [3, 1]\nseed: 7"),
        ("reduction_factor: 3", "reduction_factor: 2"),
        ("fcd, tfd, dwd", "fcd, tfd"),
    ],
)
def test_the_fingerprint_changes_with_what_decides_proposals_and_judgement(load, old, new):
    assert load(old, new).fingerprint() != load().fingerprint()


def test_places_do_not_change_the_fingerprint(load):
    assert load(data_roots={"camvid": Path("x")}).fingerprint() == load().fingerprint()


CHOOSE_DISCRIMINATOR = "method.discriminator: {choices: [fcd, tfd, dwd], when: {method.name: adversarial}}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: camvid_day", "name: Camvid_day", "1: name: must match ^[a-z0-9_][a-z0-9_-]*$, got 'Camvid_day_to_dusk'"),
        ("seeds:", "seedss:", "27: seedss: unknown key (did you mean 'seeds'?)"),
        ("trials: 12", "trials: 0", "26: budget.trials: must be at least 1, got 0"),
        ("hours: 1.5", "hours: 0", "26: budget.hours: must be greater than 0, got 0"),
        ("hours: 1.5", "hours: .nan", "26: budget.hours: must be a finite number, got nan"),
        ("hours: 1.5", "gpu_hours: 1.5", "26: budget.gpu_hours: has no effect with resources.gpus 0; use hours, or leave it out"),
        ("hours: 1.5", "target: 60", "26: budget.target: source/val/miou lies from 0 to 1, got 60; 60 % is 0.6"),
        ("concurrency: 2", "concurrency: 0", "26: budget.concurrency: must be at least 1, got 0"),
        ("seeds: [3, 1]", "seeds: []", "27: seeds: must have at least 1 item(s), got a list"),
        ("seeds: [3, 1]", "seeds: [3, 3]", "27: seeds[1]: 3 is listed twice"),
        ("seeds: [3, 1]", "seeds: 3", "27: seeds: must be a list, got 3"),
        ("seeds: [3, 1]", "seeds: {budgt: 8}", "27: seeds.budgt: unknown key (did you mean 'budget'?)"),
        ("seeds: [3, 1]", "seeds: {budget: 1}", "27: seeds.budget: must be at least 2, got 1"),
        ("seeds: [3, 1]", "seeds: {budget: 8, confidence: 1}", "27: seeds.confidence: must be smaller than 1, got 1"),
        ("seeds: [3, 1]", "seeds: {budget: 8}", "27: seeds: a budget is for telling finalists apart; set finalists to 2 or more"),
        ("seeds: [3, 1]", "seeds: {budget: 2}\nfinalists: 3", "27: seeds.budget: must be at least 3, a run for each finalist, got 2"),
        ("seeds: [3, 1]", "seeds: {budget: 8}\nfinalists: 2\nrepeat_references: true", "29: repeat_references: needs a list of seeds, which all share"),
        ("seeds: [3, 1]", "finalists: 13", "27: finalists: must be at most budget.trials 12, got 13"),
        ("seeds: [3, 1]", "finalists: 3", "27: finalists: has no effect with one training seed; list further ones under seeds"),
        ("seeds: [3, 1]", "finalists_of_each: [batch_size]", "27: finalists_of_each: has no effect with one training seed"),
        ("seeds: [3, 1]", "repeat_references: true", "27: repeat_references: has no effect with one training seed"),
        ("seeds: [3, 1]", "seeds: [3, 1]\nfinalists_of_each: [method.nme]", "28: finalists_of_each[0]: 'method.nme' is not searched"),
        ("seeds: [3, 1]", "resources: {processes: 3}", "27: resources.processes: batch_size 4 cannot be shared by 3 processes"),
        ("seeds: [3, 1]", "resources: {custom: {GPU: 1}}", "27: resources.custom.GPU: is no custom resource; say cpus and gpus"),
        ("seeds: [3, 1]", "resources: {gpus: 1.5}", "27: resources.gpus: must be whole beyond 1, got 1.5"),
        ("seeds: [3, 1]", "sampler: {name: tpee}", "27: sampler.name: must be one of 'auto', 'tpe'"),
        ("seeds: [3, 1]", "sampler: {name: random, startup_trials: 3}", "27: sampler.startup_trials: has no effect"),
        ("seeds: [3, 1]", "seeds: [-1, 0]", "27: seeds[0]: must be at least 0, got -1"),
        ("seeds: [3, 1]", "resources: {gpus: all}", "27: resources.gpus: must be auto, 0, or a number from 0.0001 to 1024, got 'all'"),
        ("seeds: [3, 1]", "resources: {custom: {nvme: 1.5}}", "27: resources.custom.nvme: must be whole beyond 1, got 1.5"),
        ("seeds: [3, 1]", "tracking: {register_as: a/b}", "27: tracking.register_as: must match"),
        ("seeds: [3, 1]", "storage: ''", "27: storage: must have at least 1 character(s), got ''"),
        # base
        ("height: 96", "heigth: 96", "7: base.data.heigth: unknown key (did you mean 'height'?)"),
        ("height: 96", "height: 9", "7: base.data.height: must be at least 32, got 9"),
        ("source: {dataset: camvid,", "source: {dataset: camvit,", "5: base.data.source.dataset: unknown data set 'camvit' (did you mean 'camvid'?)"),
        ("  steps: 900\n", "", "3: base.steps: a value is required, none came"),
        ("  oracle: end", "  seed: 3", "12: base.seed: list the training seeds under seeds"),
        ("lambda_adv_auxiliary", "lambda_adv_auxilary", "9: base.method.lambda_adv_auxilary: no method of this sweep has it (did you mean 'lambda_adv_auxiliary'?)"),
        ("  oracle: end", "  device: cuda", "12: base.device: cuda needs resources.gpus, which is 0; set it to 1"),
        ("  oracle: end", "  device: cuda:1", "12: base.device: must have no number in a sweep, got 'cuda:1'"),
        ("  oracle: end", "  device: gpu", "12: base.device: must be auto, cpu or cuda, got 'gpu'"),
        ("  oracle: end", "  precision: fp16", "12: base.precision: fp16 needs a GPU, and resources.gpus is 0"),
        ("method: {lambda", "method: {name: adversaril, lambda", "9: base.method.name: unknown method 'adversaril' (did you mean 'adversarial'?)"),
        # search
        ("optimizer.lr: {", "optimizer.lrr: {", "17: search.optimizer.lrr: a training configuration has no such field (did you mean 'optimizer.lr'?)"),
        ("optimizer.lr: {", "steps: {", "17: search.steps: cannot be searched: all trials of a sweep are compared at the same"),
        ("optimizer.lr: {", "seed: {", "17: search.seed: cannot be searched: list the training seeds under seeds"),
        ("optimizer.lr: {", "data.source.root: {", "17: search.data.source.root: cannot be searched: it says where"),
        ("low: 5e-3", "low: -1", "17: search.optimizer.lr.low: must be greater than 0 on a logarithmic scale, got -1"),
        ("low: 5e-3, high: 5e-2, log: true", "low: -1, high: 1", "17: search.optimizer.lr: must be greater than 0, got -1"),
        ("optimizer.lr: {", "data.height: {", "17: search.data.height: cannot be searched: all trials of a sweep are compared at the same"),
        ("optimizer.lr: {", "data.width: {", "17: search.data.width: cannot be searched"),
        ("optimizer.lr: {", "data.source.domain: {", "17: search.data.source.domain: cannot be searched: trials are compared on"),
        ("optimizer.lr: {", "data.target.domain: {", "17: search.data.target.domain: cannot be searched: trials are compared on"),
        ("optimizer.lr: {", "precision: {", "17: search.precision: cannot be searched"),
        ("low: 5e-3, high: 5e-2, log: true", "low: 2, high: 1", "17: search.optimizer.lr: low must be smaller than high"),
        ("low: 5e-3, high: 5e-2, log: true", "low: 1", "17: search.optimizer.lr: needs choices, or both low and high"),
        ("low: 5e-3, high: 5e-2", "low: 5e-3, hihg: 5e-2", "17: search.optimizer.lr.hihg: unknown key (did you mean 'high'?)"),
        ("low: 5e-3, high: 5e-2, log", "min: 5e-3, max: 5e-2, log", "17: search.optimizer.lr: say `low` in place of min, `high` in place of max; a range is e.g. {low: 1.0e-4, high: 0.1, log: true}"),
        ("low: 5e-3, high: 5e-2, log: true", "type: float, low: 5e-3, high: 5e-2", "17: search.optimizer.lr: say nothing in place of type: float; a range is"),
        ("low: 5e-3, high: 5e-2, log: true", "distribution: log_uniform, min: 5e-3, max: 5e-2", "17: search.optimizer.lr: say `log: true` in place of distribution: log_uniform, `low` in place of min, `high`"),
        ("{low: 5e-3, high: 5e-2, log: true}", "{values: [5e-3, 5e-2]}", "17: search.optimizer.lr: say `choices` in place of values; a range is"),
        ("{low: 5e-3, high: 5e-2, log: true}", "{type: categorical, choices: [5e-3, 5e-2]}", "17: search.optimizer.lr: say `choices` in place of type: categorical; a range is"),
        ("high: 50, step: 10", "high: 50, q: 10, type: int", "20: search.schedule.warmup_steps: say `step` in place of q, `int: true` in place of type: int; a range is"),
        ("low: 5e-3, high", "choices: [1], high", "17: search.optimizer.lr: give choices, or low and high, not both"),
        ("{low: 5e-3, high: 5e-2, log: true}", "[0.1, '0.2']", "17: search.optimizer.lr.choices[1]: must be 0.2 without quotes, got text"),
        ("high: 5e-2", "high: 5e-2, step: 1e-2", "17: search.optimizer.lr.step: cannot be combined with log"),
        ("weight_decay: default", "weight_decay: defalt", "18: search.optimizer.weight_decay: must be a list of choices, `default`"),
        ("optimizer.weight_decay", "optimizer.momentum", "18: search.optimizer.momentum: no range is declared beside this field"),
        ("high: 50", "high: 55", "20: search.schedule.warmup_steps.step: must divide the range from 0 to 55"),
        ("high: 50, step: 10", "high: 50.5", "20: search.schedule.warmup_steps.high: must be a whole number"),
        ("high: 50, step: 10", "high: 2000", "20: search.schedule.warmup_steps.high: 2000 makes a configuration that cannot be trained: warmup_steps 2000"),
        ("[resnet18, resnet34]", "[resnet18, resnet19]", "19: search.model.backbone.choices[1]: unknown backbone 'resnet19' (did you mean 'resnet18'?)"),
        ("[resnet18, resnet34]", "[resnet18, resnet18]", "19: search.model.backbone.choices[1]: 'resnet18' is listed twice"),
        ("[resnet18, resnet34]", "[]", "19: search.model.backbone.choices: must have at least 1 item(s)"),
        ("[source_only, adversarial]", "[source_onl, adversarial]", "14: search.method.name[0]: unknown method 'source_onl' (did you mean 'source_only'?)"),
        ("[source_only, adversarial]", "[[source_only], adversarial]", "14: search.method.name[0]: unknown method ['source_only']"),
        ("[source_only, adversarial]", "[source_only, adversarial, target_only]", "14: search.method.name[2]: target_only is trained on target labels and never picked"),
        ("[source_only, adversarial]", "[source_only, adversarial, joint]", "14: search.method.name[2]: joint trains with the labels of a few target images, and the base does not say of which; add e.g. `few_shot: {images: 5}` under base.data"),
        ("optimizer.weight_decay: default", "data.few_shot.images: [1, 5]", "18: search.data.few_shot.images: cannot be searched: few-shot methods are compared on the same labels"),
        ("    width: 128", "    width: 128\n    few_shot: {images: 5}", "9: base.data.few_shot: no method of this sweep uses target labels"),
        ("[source_only, adversarial]", "{choices: [target_only, adversarial]}", "14: search.method.name.choices[0]: target_only is trained on target labels"),
        ("[fcd, tfd, dwd]", "[fcd, tdf]", "15: search.method.discriminator.choices[1]: unknown discriminator 'tdf' (did you mean 'tfd'?)"),
        (CHOOSE_DISCRIMINATOR, "method.discriminator: [fcd, tfd]", "15: search.method.discriminator: method source_only has no such field; add `when: {method.name: adversarial}`"),
        (CHOOSE_DISCRIMINATOR, CHOOSE_DISCRIMINATOR.replace("adversarial", "adversaril"), "15: search.method.discriminator.when.method.name: method.name is never adversaril (did you mean 'adversarial'?)"),
        (CHOOSE_DISCRIMINATOR, CHOOSE_DISCRIMINATOR.replace("when: {method.name", "when: {method.nam"), "15: search.method.discriminator.when.method.nam: a condition needs a searched path or a field of the training configuration (did you mean 'method.name'?)"),
        (CHOOSE_DISCRIMINATOR, CHOOSE_DISCRIMINATOR.replace("method.name: adversarial", "optimizer.momentum: 0.5"), "15: search.method.discriminator.when.optimizer.momentum: never holds"),
        (CHOOSE_DISCRIMINATOR, CHOOSE_DISCRIMINATOR.replace("method.name: adversarial", "optimizer.lr: 0.01"), "15: search.method.discriminator.when.optimizer.lr: optimizer.lr is a range of real numbers"),
        ("optimizer.weight_decay: default", "method.discriminators: [fcd]", "18: search.method.discriminators: a training configuration has no such field (did you mean 'method.discriminator'?)"),
        # objectives, constraints, scheduler
        ("oracle: end", "oracle: never\nselection: oracle", "13: selection: oracle chooses by target scores, and base.oracle is never"),
        ("direction: maximize", "direction: max", "22: objectives[0].direction: must be one of 'maximize' or 'minimize', got 'max'"),
        ("metric: macs", "metric: source/val/mious", "23: objectives[1].metric: unknown metric 'source/val/mious' (did you mean 'source/val/miou'?)"),
        ("metric: macs", "metric: source/val/iou/Rode", "23: objectives[1].metric: unknown metric 'source/val/iou/Rode' (did you mean 'source/val/iou/Road'?)"),
        ("metric: macs", "metric: source/val/miou", "23: objectives[1].metric: source/val/miou is an objective already"),
        ("metric: macs", "metric: source/test/miou", "23: objectives[1].metric: source/test/miou is made from the test split"),
        ("metric: macs", "metric: oracle/target/miou", "23: objectives[1].metric: oracle/target/miou is made from target labels, which must not steer a search"),
        ("metric: macs", "metric: oracle/target/miou_under", "23: objectives[1].metric: oracle/target/miou_under is made from target labels, which must not steer a search"),
        ("metric: macs", "metric: source/val/miou_undr", "23: objectives[1].metric: unknown metric 'source/val/miou_undr' (did you mean 'source/val/miou_under'?)"),
        ("optimizer.weight_decay: default", "loss.gamma: default", "18: search.loss.gamma: no loss of this sweep has it, but focal; add that to loss.name or leave the path out"),
        ("optimizer.weight_decay: default", "data.under_represented: [Road]", "18: search.data.under_represented: cannot be searched: trials are compared by the same scores"),
        ("fps >= 30", "fps > 30", "24: constraints[0]: must be `name >= number` or `name <= number`"),
        ("fps >= 30", "fps >= x", "24: constraints[0]: must be `name >= number` or `name <= number`"),
        ("fps >= 30", "fsp >= 30", "24: constraints[0]: constraints are on efficiency metrics, 'fsp' is none (did you mean 'fps'?)"),
        ("fps >= 30", "fps >= 0", "24: constraints[0].bound: must be greater than 0, got 0"),
        ("macs <= 25e9", "fps >= 40", "24: constraints[1]: fps >= 30 bounds fps already; keep one of them"),
        ("macs <= 25e9", "fps <= 20", "24: constraints[1]: fps >= 30 and fps <= 20 exclude each other"),
        ("macs <= 25e9", "source/val/miou >= 0.5", "24: constraints[1]: constraints are on efficiency metrics, 'source/val/miou' is none"),
        ("min_steps: 100", "min_steps: 150", "25: scheduler.min_steps: must be a multiple of base.report_every 100, got 150"),
        ("min_steps: 100", "min_steps: 900", "25: scheduler.min_steps: must be smaller than base.steps 900, got 900"),
        ("reduction_factor: 3", "reduction_factor: 1", "25: scheduler.reduction_factor: must be at least 2, got 1"),
        ("min_steps: 100", "metric: oracle/target/miou", "25: scheduler.metric: oracle/target/miou is made from target labels"),
        ("min_steps: 100", "metric: target/missing_classes", "25: scheduler.metric: asha keeps the largest target/missing_classes, of which less is better; use `name: mo_asha`"),
        ("name: asha, reduction_factor: 3", "name: none, reduction_factor: 4", "25: scheduler.reduction_factor: unknown key; known: name"),
        # deploy
        ("seeds: [3, 1]", "deploy: {runtime: onxruntime}", "27: deploy.runtime: must be one of 'eager', 'torch_compile', 'onnxruntime' or 'pt2e', got 'onxruntime' (did you mean 'onnxruntime'?)"),
        ("seeds: [3, 1]", "deploy: {precision: int8}", "27: deploy.runtime: a value is required, none came"),
        ("seeds: [3, 1]", "deploy: {runtime: eager, precision: int8}", "27: deploy.precision: eager knows fp32 or bf16 or fp16, got int8; choose"),
        ("seeds: [3, 1]", "resources: {gpus: 1}\ndeploy: {runtime: pt2e, precision: int8}", "28: deploy.runtime: pt2e computes on processors alone"),
        ('constraints: ["fps >= 30",', 'deploy: {runtime: onnxruntime}\nconstraints: ["peak_memory_bytes <= 1e9",', "25: constraints[0]: peak_memory_bytes is not measured of what onnxruntime runs"),
        # references
        ("upper_bound:", "' ':", "28: references: a reference needs a name of one line and at most 100 characters, got ' '"),
        ("target_only", "target_onl", "29: references.upper_bound.method.name: unknown method 'target_onl' (did you mean 'target_only'?)"),
        ("optimizer.lr: 0.025", "optimizer.lr: -1", "29: references.upper_bound.optimizer.lr: must be greater than 0, got -1"),
        ("optimizer.lr: 0.025", "optimiser.lr: 1", "29: references.upper_bound.optimiser.lr: a training configuration has no such field (did you mean 'optimizer.lr'?)"),
        ("optimizer.lr: 0.025", "steps: 1", "29: references.upper_bound.steps: cannot differ in a reference"),
        ("method.name: target_only, ", "", "29: references.upper_bound: base has no method, so the reference must name one"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_file_names_line_key_and_what_was_expected(load, tmp_path, old, new, message):
    with pytest.raises(ConfigError) as error:
        load(old, new)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'sweep.yaml'}:{message}")
    assert "\n" not in text


def test_conditions_that_wait_for_each_other_are_refused(make_spec):
    search = {
        "optimizer.name": {"choices": ["sgd", "adam"], "when": {"batch_size": 4}},
        "batch_size": {"choices": [4, 8], "when": {"optimizer.name": "sgd"}},
    }
    with pytest.raises(ValueError, match=r"the conditions of batch_size and optimizer.name wait for each other"):
        make_spec(search=search)


def test_target_labels_are_seen_by_the_methods_that_need_them_alone(load):
    spec = load(
        "    width: 128",
        "    width: 128\n    few_shot: {images: 5}",
        "[source_only, adversarial]",
        "[source_only, adversarial, joint]",
    )
    few = {
        name: spec.train_config({"method.name": name}, seed=3).data.few_shot
        for name in ("source_only", "joint", "target_only")
    }
    assert few["joint"].images == 5
    assert (few["source_only"], few["target_only"]) == (None, None)


def test_methods_that_need_target_labels_are_a_default_once_the_base_names_some(make_spec):
    base = make_spec().base
    few = base | {"data": base["data"] | {"few_shot": {"images": 5}}}
    search = {"method.name": "default", "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    without, with_labels = (
        set(make_spec(base=plain, search=search).search["method.name"].choices) for plain in (base, few)
    )
    assert with_labels - without == {name for name in METHODS if METHODS[name].needs_few_shot} >= {"joint", "fine_tune"}
    assert "target_only" not in with_labels


def test_the_labels_of_few_shot_methods_cannot_be_searched(make_spec):
    with pytest.raises(ValueError, match="few-shot methods are compared on the same labels"):
        make_spec(search={"data.few_shot": [1, 5]})


def test_a_field_of_an_unreachable_method_names_its_owner(make_spec):
    with pytest.raises(ValueError, match=r"no method of this sweep has it, but adversarial; add that to method.name"):
        make_spec(search={"method.lambda_adv_auxiliary": {"low": 0.1, "high": 0.2}})


def test_default_methods_are_those_that_can_be_picked(make_spec):
    search = {"method.name": "default", "optimizer.lr": "default"}
    chosen = set(make_spec(search=search).search["method.name"].choices)
    assert chosen >= {"source_only", "adversarial"}
    assert not chosen & {"target_only", "joint"}  # they need target labels


def test_a_sweep_of_upper_bounds_alone_is_refused(make_spec):
    base = make_spec().base | {"method": {"name": "target_only"}}
    with pytest.raises(ValueError, match="target_only is trained on target labels and never picked"):
        make_spec(base=base)


def test_a_reference_differs_in_no_setting_that_all_are_compared_at(make_spec):
    with pytest.raises(
        ValueError, match="cannot differ in a reference: all trials of a sweep are compared at the same"
    ):
        make_spec(references={"large": {"optimizer.lr": 0.01, "data.height": 64}})


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"search": {"batch_size": [4, 5, 6]}}, ("search", "batch_size", "choices", 1)),
        ({"search": {"batch_size": {"low": 4, "high": 6}}}, ("search", "batch_size")),
        ({"references": {"small": {"optimizer.lr": 0.01, "batch_size": 2}}}, ("references", "small", "batch_size")),
        # Where it is not searched the batch has its own size.
        (
            {
                "search": {
                    "optimizer.name": ["sgd", "adam"],
                    "batch_size": {"choices": [4, 8], "when": {"optimizer.name": "sgd"}},
                },
                "base": {"batch_size": 5},
            },
            ("resources", "processes"),
        ),
    ],
)
def test_processes_must_share_every_batch_that_a_trial_can_have(make_spec, changes, where):
    changes["base"] = make_spec().base | changes.get("base", {})
    assert make_spec(**changes)
    with pytest.raises(LocatedError, match=r"batch_size [25] cannot be shared by 2 processes") as caught:
        make_spec(**changes, resources={"processes": 2})
    assert caught.value.location == where


@pytest.mark.parametrize("gpus", [1, 0.5, "auto"])
def test_the_device_is_what_the_resources_hold(make_spec, gpus):
    base = make_spec().base
    for device in ("auto", "cuda"):
        assert make_spec(base=base | {"device": device}, resources={"gpus": gpus}, budget={"trials": 3, "gpu_hours": 1})
    with pytest.raises(LocatedError, match=f"must be 0 with base.device cpu, got {gpus}"):
        make_spec(base=base | {"device": "cpu"}, resources={"gpus": gpus})


def test_networks_are_searched_by_choices_only(make_spec):
    with pytest.raises(ValueError, match=r"networks are searched by choices, since the cost of each is measured"):
        make_spec(search={"model.backbone": {"low": 18, "high": 50}})


def test_a_sweep_needs_a_method(make_spec):
    base = {key: value for key, value in make_spec().base.items() if key != "method"}
    with pytest.raises(ValueError, match=r"no method: name one under base.method.name or search method.name"):
        make_spec(base=base)


UNPRUNED = ("name: asha, reduction_factor: 3, min_steps: 100", "name: none")


def test_the_wall_opens_only_with_selection_oracle(load):
    objective = ("metric: source/val/miou", "metric: oracle/target/miou")
    spec = load(*objective, "seeds: [3, 1]", "selection: oracle", *UNPRUNED)
    assert spec.objectives[0].metric == "oracle/target/miou"
    with pytest.raises(ConfigError, match=r"not reported with base.oracle: never"):
        load(*objective, "seeds: [3, 1]", "selection: oracle", "oracle: end", "oracle: never")


def test_pruning_on_target_labels_needs_them_along_the_way(load):
    change = ("metric: source/val/miou", "metric: oracle/target/miou", "seeds: [3, 1]", "selection: oracle")
    with pytest.raises(ConfigError, match=r"oracle/target/miou is reported only with base.oracle: always, it is end"):
        load(*change)
    assert load(*change, "oracle: end", "oracle: always").scheduler.metric == "oracle/target/miou"


def test_the_score_of_one_class_can_be_an_objective(load):
    assert load("metric: macs", "metric: source/val/iou/Road", *UNPRUNED).objectives[1].metric == "source/val/iou/Road"


@pytest.mark.parametrize(
    ("text", "value", "holds", "violation"),
    [
        ("fps >= 30", 30.0, True, 0.0),
        ("fps >= 30", 15.0, False, 0.5),
        ("fps >= 30", 60.0, True, -1.0),
        ("macs <= 2e9", 3e9, False, 0.5),
        ("macs <= 2e9", 1e9, True, -0.5),
    ],
)
def test_a_constraint_knows_by_how_much_it_is_broken(make_spec, text, value, holds, violation):
    (constraint,) = make_spec(constraints=[text]).constraints
    assert constraint.holds(value) is holds
    assert constraint.violation(value) == pytest.approx(violation)


def test_an_unmeasured_value_keeps_no_constraint():
    assert not Constraint(metric="fps", operator=">=", bound=1).holds(float("nan"))


def test_a_bound_is_written_out_exactly(make_spec):
    spec = make_spec(constraints=["num_parameters<=12345678"])
    assert SweepSpec.model_validate(spec.canonical()).constraints[0].bound == 12345678


def test_dotted_values_make_nested_data_without_changing_the_original():
    original = {"a": {"b": 1}, "c": 2}
    assert with_values(original, {"a.d": 3, "e.f.g": None}) == {"a": {"b": 1, "d": 3}, "c": 2, "e": {"f": {"g": None}}}
    assert original == {"a": {"b": 1}, "c": 2}
    assert value_at(original, "a.b") == 1
    assert value_at(original, "a.b.x", "nothing") == "nothing"


def test_the_schema_knows_what_can_be_searched():
    schema = sweep_schema()
    paths = {key.removeprefix("search.") for key in keys_of(schema) if key.startswith("search.")}
    assert {"optimizer.lr", "method.lambda_adv", "method.name", "model.backbone"} <= paths
    assert not {"seed", "steps", "data.source.root"} & paths
    assert set(schema["required"]) == {"name", "base", "search", "budget"}
    json.dumps(schema)


def test_references_are_repeated_only_where_there_are_some(make_spec):
    with pytest.raises(LocatedError, match="there are no references to repeat"):
        make_spec(seeds=[0, 1], repeat_references=True)


def test_changes_are_put_over_a_file_and_keys_of_the_search_stay_whole(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(fakes.plain_spec(references={"plain": {"method.name": "source_only"}})))
    changes = {
        "base.steps": 12,
        "base.data.style": {"name": "lab"},
        "search.batch_size": [2, 4],
        "references.plain.optimizer.lr": 0.5,
        "question": "why?",
    }
    spec = load_spec(file, changes=changes)
    assert (spec.base["steps"], spec.base["data"]["style"], spec.question) == (12, {"name": "lab"}, "why?")
    assert spec.search["batch_size"].choices == (2, 4)
    assert spec.references == {"plain": {"method.name": "source_only", "optimizer.lr": 0.5}}
    assert load_spec(yaml.safe_load(file.read_text()), changes=changes) == spec
    assert yaml.safe_load(file.read_text())["base"]["steps"] != 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base.stepps": 3}, r"with base\.stepps=3: base\.stepps: .*did you mean 'steps'"),
        ({"seed.first": 3}, r"with seed\.first=3: seed is a value, not a group of settings"),
        ({"search.optimizer.lrr": [1]}, r"search\.optimizer\.lrr: .*did you mean 'optimizer\.lr'"),
    ],
)
def test_a_wrong_change_is_told_with_the_change(tmp_path, changes, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(fakes.plain_spec(seed=1)))
    with pytest.raises(ConfigError, match=message):
        load_spec(file, changes=changes)
