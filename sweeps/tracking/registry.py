"""The picked network in MLflow's model registry."""

import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from segda.checkpoint import load_segmenter
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.deployment.onnx_file import write_onnx
from segda.deployment.program import OUTPUT, Accepts, capture
from segda.deployment.shipped import ShippedNetwork
from segda.errors import ExportError
from segda.masking import reason
from segda.models import Segmenter
from sweeps.tracking.server import TrackingError
from sweeps.trial import TrialRecord

# What loading the model needs; found by hand, because MLflow's own search loads the model in another process.
_REQUIREMENTS = ("mlflow", "onnx", "onnxruntime", "numpy")
_EXAMPLE = (1, 3, 64, 96)  # of an input: any size will do, and MLflow writes it as text


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

    It is stored as an ONNX file that takes bytes of images of any size and gives class maps, without the parts that only training
    needs: `mlflow models serve` and `mlflow.pyfunc.load_model` run it with ONNX Runtime, without pickled code, PyTorch, segda or
    sweeps.

    Example, of what it is for:
        model = mlflow.pyfunc.load_model("models:/street/1")
        image = np.asarray(Image.open("photo.jpg").convert("RGB"))  # uint8 [H, W, 3]
        classes = model.predict(image.transpose(2, 0, 1)[None])["classes"][0]  # train ids, uint8 [H, W]

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
                _save(segmenter, path, config=config, description=description)
            except ExportError as error:
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


def _save(segmenter: Segmenter, path: Path, *, config: TrainConfig, description: Model) -> None:
    import mlflow.onnx  # takes a second
    import onnx

    facts: dict[str, Any] = {
        "classes": list(DATASETS[config.data.source.dataset].classes),
        "image": "RGB, 0..255, uint8 [batch, 3, height, width], sides of 32 pixels or more",
        "trained_size": [config.data.height, config.data.width],
        "config": config.canonical(),
    }
    everything = Accepts()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        write_onnx(capture(ShippedNetwork(segmenter), everything), file, accepts=everything, metadata={})
        mlflow.onnx.save_model(
            onnx.load(str(file)),
            str(path),
            mlflow_model=description,
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, 3, -1, -1))]),
                outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1), name=OUTPUT)]),
            ),
            input_example=np.random.default_rng(0).integers(0, 256, _EXAMPLE, dtype=np.uint8),
            pip_requirements=[f"{package}=={metadata.version(package).partition('+')[0]}" for package in _REQUIREMENTS],
            onnx_session_options={"extra_session_config": {"session.intra_op.allow_spinning": "0"}},
            save_as_external_data=False,
            metadata=facts,
        )
