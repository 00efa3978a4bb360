"""MLflow's server with a first page that shows sweeps: `mlflow ui --app-name sweeps`, and `sweeps ui`.

MLflow opens every experiment in the mode for generative models, beside an assistant, as one collapsed row without a figure, and no
tag changes that. What it shows is in the browser's own storage, though. So a script of a few lines, in front of MLflow's own, puts
there once the mode for training and that the assistant has been shown, and of each experiment the view of its latest sweep, which
`sweeps.tracking.saved_views` has left among the tags. Whatever somebody changes on the page stays until there is another sweep.

A browser keeps that by the server's address alone, and the next store at the same port has other experiments of the same number:
what the script has put there is noted, and replaced or taken away where it is another sweep's.

If MLflow does not have these keys any more, or the script fails, the page is MLflow's own. Nothing here needs what training needs.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.tracking.view_keys import ASSISTANT, PAGE, PAGE_VERSION, TABLE, TAG, WORKFLOW

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_SCRIPT = """
(() => {
  const kept = localStorage, noted = "sweeps.shown";
  const open = (address) => {
    const place = /#\\/experiments\\/(\\d+)/.exec(String(address));
    const before = open.last;
    open.last = place && place[1];
    if (!place || place[1] === before) return;
    const asked = new XMLHttpRequest();  // waited for: the page reads what is kept as soon as it is shown
    asked.open("GET", "ajax-api/2.0/mlflow/experiments/get?experiment_id=" + place[1], false);
    asked.send();
    if (asked.status !== 200) return;
    const views = (JSON.parse(asked.responseText).experiment.tags || [])
      .filter((tag) => tag.key.startsWith(NAMES.tag))
      .map((tag) => ({ key: tag.key, ...JSON.parse(tag.value) }))
      .sort((one, other) => (other.createdAt || 0) - (one.createdAt || 0));
    const page = NAMES.page.replace("ID", place[1]), note = noted + "." + place[1];
    const latest = views.length ? views[0].key : null;
    if (kept.getItem(note) === latest) return;
    if (latest) {
      kept.setItem(page, views[0].state);
      kept.setItem(note, latest);
    } else {
      kept.removeItem(page);
      kept.removeItem(note);
    }
  };
  const quietly = (what, ...given) => {
    try { what(...given); } catch (error) { console.warn("sweeps:", error); }
  };
  const begin = () => {
    if (kept.getItem(noted) === null) {
      kept.setItem(NAMES.workflow, JSON.stringify("machine_learning"));
      kept.setItem(NAMES.assistant, JSON.stringify(true));
      kept.setItem(noted, "1");
    }
    for (const name of ["pushState", "replaceState"]) {
      const own = history[name];
      history[name] = function (state, title, address) {
        quietly(open, address);
        return own.apply(this, arguments);
      };
    }
    addEventListener("hashchange", () => quietly(open, location.href));
    addEventListener("popstate", () => quietly(open, location.href));
    open(location.href);
  };
  quietly(begin);
})();
"""


def knows_keys(build: Path) -> bool:
    """Return whether MLflow's page keeps what the script puts there.

    Args:
        build: folder of MLflow's page.
    """
    wanted = [WORKFLOW, ASSISTANT, *PAGE, TAG]
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(build.glob("static/js/main.*.js")))
    return all(key in text for key in wanted)


def page(original: str) -> str:
    """Return MLflow's page with the script in front of MLflow's own.

    Args:
        original: text of MLflow's index.html.
    """
    storage, experiment, state = PAGE
    names = {
        "tag": f"{TAG}{TABLE}",
        "page": f'{storage}-{PAGE_VERSION}-{experiment}-["ID"]-{state}',
        "workflow": f"{WORKFLOW}_v1",
        "assistant": f"{ASSISTANT}_v1",
    }
    return original.replace("<head>", f"<head><script>const NAMES = {json.dumps(names)};{_SCRIPT}</script>", 1)


def create_app() -> "FastAPI":
    """Return MLflow's server with that page; what `mlflow ui --app-name sweeps` runs."""
    import mlflow.server
    from fastapi.responses import HTMLResponse
    from mlflow.server.fastapi_app import create_fastapi_app
    from mlflow.server.handlers import _add_static_prefix
    from starlette.routing import Route

    app: FastAPI = create_fastapi_app()
    build = Path(mlflow.server.__file__).parent / "js" / "build"
    index = build / "index.html"  # a build from sources has none
    if index.is_file() and knows_keys(build):
        text = page(index.read_text(encoding="utf-8"))
        # In front of MLflow's own, and behind its check of the host that is asked for.
        app.router.routes.insert(0, Route(_add_static_prefix("/"), lambda request: HTMLResponse(text), methods=["GET"]))
    else:
        log.warning("this version of MLflow has another page than sweeps knows; it opens as MLflow opens it")
    return app
