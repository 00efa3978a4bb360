# %% [markdown]
# A sweep from a notebook: every editor that knows `# %%` shows this file as cells, and `python examples/notebook.py` runs it.

# %% Two procedural domains, made in a moment; with data of your own, `data_roots` says where they lie.
from pathlib import Path

import plotly.express as px

import sweeps
from segda.datasets.scenes import generate_scenes

SIZE, TILES, STEPS, TRIALS = 128, 32, 80, 6
scenes = generate_scenes(Path("demo/notebook_scenes"), size=SIZE, train=TILES, val=TILES // 4)

# %% What a sweep file would say, as Python.
domains = {
    name: {"dataset": "scenes", "domain": domain} for name, domain in {"source": "urban", "target": "rural"}.items()
}
spec = sweeps.load_spec(
    {
        "name": "notebook",
        "question": "How much network does rural land cover want?",
        "base": {
            "data": {**domains, "height": SIZE, "width": SIZE, "augmentation": "nadir_color"},
            "model": {"name": "bisenet_v1", "pretrained": "none"},
            "method": {"name": "source_only"},
            "steps": STEPS,
            "report_every": STEPS // 2,
            "batch_size": 4,
        },
        "search": {
            "model.backbone": ["resnet18", "resnet34", "resnet50"],
            "optimizer.lr": {"low": 1e-2, "high": 5e-2, "log": True},
        },
        "objectives": [
            {"metric": "source/val/miou", "direction": "maximize"},
            {"metric": "macs", "direction": "minimize"},
        ],
        "budget": {"trials": TRIALS, "concurrency": 2},
        "resources": {"cpus": 1, "gpus": 0},
    },
    data_roots={"scenes": scenes},
)

# %% Run it, with a progress bar. Interrupt it whenever you like: `sweeps.resume("notebook", store="demo/runs")` goes on.
sweeps.run(spec, store="demo/runs")

# %% What came out, as a table of pandas.
trials = sweeps.results("notebook", store="demo/runs")
trials[["number", "state", "picked", "model.backbone", "source/val/miou", "macs", "latency_ms"]]

# %% The front: no network that costs less is better.
trained = trials[(trials.state == "complete") & (trials.kind == "search")].sort_values(["macs", "source/val/miou"])
best = trained.groupby("macs")["source/val/miou"].max().cummax().drop_duplicates()
figure = px.scatter(trained, x="macs", y="source/val/miou", color="model.backbone", hover_data=["number", "latency_ms"])
figure.add_scatter(x=best.index, y=best, mode="lines", line={"shape": "hv"}, name="front")
figure.write_html("demo/front.html")  # in a notebook, `figure` alone shows it

# %% What to pick, and what that rests on.
sweeps.report("notebook", store="demo/runs")
