"""MLflow's server with a first page that shows sweeps: `mlflow ui --app-name sweeps`, and `sweeps ui`.

MLflow opens every experiment in the mode for generative models, beside an assistant, as one collapsed row without a figure, and no
tag changes that. What it shows is in the browser's own storage, though. So a script of a few lines, in front of MLflow's own, puts
there what is not there yet: the mode for training, the assistant closed, and of an experiment with a sweep the view that
`sweeps.tracking.saved_views` has left among its tags. Whatever somebody changes on the page stays as it was left. If MLflow does
not know these keys any more, the page is MLflow's own.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.tracking.saved_views import OPENED

if TYPE_CHECKING:
    from fastapi import FastAPI

WORKFLOW, ASSISTANT = "mlflow.workflowType", "mlflow.assistant.fab.autoOpenedOnFirstLoad"
VIEW = ("MLflowLocalStorage", "ExperimentPage", "ReactComponentState")  # parts of a key
_SCRIPT = """
(() => {
  const unset = (key, value) => { if (localStorage.getItem(key) === null) localStorage.setItem(key, value); };
  const seen = new Set();
  const open = (address) => {
    const place = /#\\/experiments\\/(\\d+)/.exec(String(address));
    if (!place || seen.has(place[1])) return;
    seen.add(place[1]);
    const key = `%(storage)s-1.1-%(page)s-["${place[1]}"]-%(state)s`;
    if (localStorage.getItem(key) !== null) return;
    const asked = new XMLHttpRequest();  // waited for: the page reads its storage as soon as it is shown
    asked.open("GET", `ajax-api/2.0/mlflow/experiments/get?experiment_id=${place[1]}`, false);
    asked.send();
    const tags = asked.status === 200 ? JSON.parse(asked.responseText).experiment.tags || [] : [];
    const view = tags.find((tag) => tag.key === %(tag)s);
    if (view) unset(key, JSON.parse(view.value).state);
  };
  const quietly = (address) => { try { open(address); } catch (error) { console.warn("sweeps:", error); } };
  try {
    unset("%(workflow)s_v1", '"machine_learning"');
    unset("%(assistant)s_v1", "true");
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function (state, title, address) { quietly(address); return original.apply(this, arguments); };
    }
    addEventListener("hashchange", () => quietly(location.href));
    quietly(location.href);
  } catch (error) { console.warn("sweeps:", error); }
})();
"""


def page(original: str) -> str:
    """Return MLflow's page with the script in front of MLflow's own.

    Args:
        original: text of MLflow's index.html.
    """
    storage, experiment, state = VIEW
    names = {"storage": storage, "page": experiment, "state": state, "tag": json.dumps(OPENED)}
    script = _SCRIPT % {**names, "workflow": WORKFLOW, "assistant": ASSISTANT}
    return original.replace("<head>", f"<head><script>{script}</script>", 1)


def create_app() -> "FastAPI":
    """Return MLflow's server with that page; what `mlflow ui --app-name sweeps` runs."""
    import mlflow.server
    from fastapi.responses import HTMLResponse
    from mlflow.server.fastapi_app import create_fastapi_app
    from starlette.routing import Route

    app: FastAPI = create_fastapi_app()
    index = Path(mlflow.server.__file__).parent / "js" / "build" / "index.html"
    if index.is_file():  # a build from sources has none
        text = page(index.read_text(encoding="utf-8"))
        # In front of MLflow's own, and behind its check of the host that is asked for.
        app.router.routes.insert(0, Route("/", lambda request: HTMLResponse(text), methods=["GET"]))
    return app
