"""Trial records for tests of what reads them."""

from sweeps.trial import TrialKind, TrialRecord, TrialState

CLASSES = ("Road", "Sky", "Car", "Tree", "Fence", "Sidewalk", "Building", "Pole")
PROFILE = {"num_parameters": 12e6, "macs": 3e9, "latency_ms": 20.0, "fps": 50.0}


def trial(number, source=0.6, target=0.4, *, method="adversarial", discriminator=None, metrics=None, **changes):
    """A fully trained search trial; `metrics` are put over the usual figures, None removes one."""
    figures = {f"source/val/iou/{name}": source for name in CLASSES}
    figures |= {"source/val/miou": source, "oracle/target/miou": target}
    figures |= {"target/largest_class_share": 0.4, "target/missing_classes": 1.0} | (metrics or {})
    params = {"method.name": method, "optimizer.lr": 0.01 * (number + 1)}
    config = {
        "data": {
            "source": {"dataset": "camvid", "domain": "day"},
            "target": {"dataset": "camvid", "domain": "dusk"},
            "height": 32,
            "width": 64,
        },
        "model": {"name": "bisenet_v1", "backbone": "resnet18"},
        "method": {"name": method},
        "steps": 100,
        "batch_size": 4,
    }
    if method == "adversarial":
        params["method.discriminator"] = config["method"]["discriminator"] = discriminator or "fcd"
    fields = {
        "sweep": "demo",
        "number": number,
        "key": f"key{number}",
        "kind": TrialKind.SEARCH,
        "params": params,
        "config": config,
        "seed": 0,
        "state": TrialState.COMPLETE,
        "step": 100,
        "metrics": {name: value for name, value in figures.items() if value is not None},
        "profile": PROFILE,
    }
    return TrialRecord(**(fields | changes))


def replicate(number, parent, source, target=0.4, *, seed=1, **changes):
    """The repetition of a trial with another seed."""
    fields = {"kind": TrialKind.REPLICATE, "parent": parent.number, "params": parent.params, "config": parent.config}
    return trial(number, source, target, **(fields | {"seed": seed} | changes))
