"""The picked network in MLflow's model registry."""

import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from segda.checkpoint import load_segmenter
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.masking import reason
from segda.models.logits_only import LogitsOnly
from segda.types import IMAGE_MEAN, IMAGE_STD
from sweeps.tracking.server import TrackingError
from sweeps.trial import TrialRecord

# What loading the model needs; found by hand, because MLflow's own search loads the model in another process.
_REQUIREMENTS = ("mlflow", "torch", "numpy")


def register(
    client: MlflowClient,
    name: str,
    *,
    record: TrialRecord,
    run_id: str,
    experiment: str,
    checkpoint: Path,
    tags: dict[str, str],
) -> str:
    """Register a trained network, unless it is registered already.

    It is stored as an exported program (`torch.export`) without the parts that only training needs: loading it runs no pickled
    code and needs neither segda nor sweeps.

    Args:
        client: MLflow.
        name: of the registered model; made if need be.
        record: the trial.
        run_id: its run, under whose outputs the model appears.
        experiment: id of the experiment.
        checkpoint: what its training left.
        tags: of the new version, among them `sweep.id`; the same tags tell that it is there already.

    Returns:
        The version.

    Raises:
        TrackingError: the network cannot be exported.
        WeightsError: the checkpoint is missing or damaged.
        MlflowException: a call failed.
    """
    segmenter, config = load_segmenter(checkpoint)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By the sweep and not by the name, which may hold any character.
    for version in client.search_model_versions(f"tags.`sweep.id` = '{tags['sweep.id']}'"):
        if version.name == name and tags.items() <= version.tags.items():
            return str(version.version)
    model = client.create_logged_model(experiment, name=f"trial-{record.number}", source_run_id=run_id, tags=tags)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        description = Model(
            artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow and torch warn about code of their own
            try:
                _save(LogitsOnly(segmenter), path, config=config, description=description)
            except RuntimeError as error:
                client.finalize_logged_model(model.model_id, "FAILED")
                raise TrackingError(
                    f"trial {record.number} cannot be exported and registered: {reason(error)}"
                ) from error
        client.log_model_artifacts(model.model_id, str(path))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=record.step)])
    # By place: an address of the form models:/<id> would be looked up in the process's global MLflow.
    made = client.create_model_version(
        name, model.artifact_location, run_id, tags=tags, model_id=model.model_id, await_creation_for=0
    )
    return str(made.version)


def _save(network: LogitsOnly, path: Path, *, config: TrainConfig, description: Model) -> None:
    import mlflow.pytorch  # takes a second
    from mlflow import pyfunc

    height, width = config.data.height, config.data.width
    classes = DATASETS[config.data.source.dataset].classes
    # Two images, because an exported batch of one would stay one.
    example = torch.zeros(2, 3, height, width)
    with torch.inference_mode():
        shape = network(example).shape
    facts: dict[str, Any] = {
        "classes": list(classes),
        "image": "float32 RGB in [0, 1], minus mean, divided by std",
        "mean": list(IMAGE_MEAN),
        "std": list(IMAGE_STD),
        "config": config.canonical(),
    }
    # Added by hand because MLflow does not for an example that is a tensor, and would write one that is an array as text.
    pyfunc.add_to_model(
        description,
        loader_module="mlflow.pytorch",
        data="data",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config={"device": None},
    )
    mlflow.pytorch.save_model(
        network,
        str(path),
        mlflow_model=description,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 3, height, width))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape[1:]))]),
        ),
        input_example=example,
        pip_requirements=[f"{package}=={metadata.version(package).partition('+')[0]}" for package in _REQUIREMENTS],
        serialization_format="pt2",
        metadata=facts,
    )
