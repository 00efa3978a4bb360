"""What a browser makes of a page, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium to read the page (Debian: apt install chromium)"
)


def seen(page, steps, *, folder, hash="", seconds=5, width=1280):
    """Return what some steps see in a page.

    Args:
        page: its file.
        steps: a function's body in JavaScript, run when the page is there; what it returns is plain data. `click(name)` presses the
            button of that name. In a page that is read again they run each time; the last time counts.
        folder: an empty one for the browser and the copy of the page that has the steps.
        hash: what stands behind # in the address.
        seconds: of the page's own clock that pass before it is looked at.
        width: of the window in pixels.
    """
    click = "const click = (name) => document.querySelector(`button[aria-label='${name}']`).click();"
    run = f"const seen = (() => {{ {click} {steps} }})();"
    show = "document.body.append(Object.assign(document.createElement('pre'), {id: 'seen', textContent: JSON.stringify(seen)}));"
    copy = folder / "page.html"
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{{ {run} {show} }}</script></body>")
    copy.write_text(text, encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--virtual-time-budget={1000 * seconds}"]
    words += [
        f"--window-size={width},900",
        f"--user-data-dir={folder / 'browser'}",
        "--dump-dom",
        f"{copy.as_uri()}{hash}",
    ]
    dom = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False).stdout
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', dom, flags=re.DOTALL)
    return json.loads(html.unescape(found))
