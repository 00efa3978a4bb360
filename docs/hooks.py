"""What `mkdocs build` does beyond Markdown: it fills in tables made from the code, and takes along files that pages point to.

A page asks for a table by a line `<!-- table: NAME -->`; `tables.py` has them. A link that leaves `docs/`, such as
`../launch/README.md`, is right in the repository; on the site it leads to a copy of the file, which is made here.
"""

import logging
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from tables import TABLES

log = logging.getLogger("mkdocs.hooks.segda")

_COPIES = "repository"  # folder of the site
_TABLE = re.compile(r"^<!-- table: (\S+) -->$", flags=re.MULTILINE)
# Code has no links; the text of a link, [`like this`](page.md), may be code.
_CODE = re.compile(r"(^(?P<fence>`{3,}).*?^(?P=fence)$|`[^`\n]+`(?!\]))", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sql": "sql"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside of `docs/` that a page, or one of these files, links to."""
    root = Path(config.docs_dir).parent
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    known = set(waiting)
    while waiting:
        here = waiting.pop()
        if not here.endswith(".md"):
            continue
        for target in _targets((root / here).read_text(), here):
            if target.startswith("docs/") or target in known or not (root / target).is_file():
                continue
            known.add(target)
            waiting.append(target)
            files.append(
                File.generated(
                    config, _copy(target), content=_page(root / target, target), inclusion=InclusionLevel.NOT_IN_NAV
                )
            )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables, and lead links out of `docs/` to the copies."""
    here = page.file.src_uri
    is_copy = here.startswith(f"{_COPIES}/")
    origin = here.removeprefix(f"{_COPIES}/") if is_copy else f"docs/{here}"
    if is_copy and not (Path(config.docs_dir).parent / origin).is_file():
        return markdown  # a file that is shown as it is

    def table(found: re.Match[str]) -> str:
        if found[1] not in TABLES:
            log.warning("%s asks for a table %r; there are: %s", here, found[1], ", ".join(TABLES))
            return ""
        return TABLES[found[1]]()

    def link(found: re.Match[str]) -> str:
        return f"{found['before']}{_redirected(found['target'], origin, here, files)}{found['after']}"

    # Links first: those of tables are right on the site already.
    return _TABLE.sub(table, _outside_code(markdown, lambda text: _LINK.sub(link, text)))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(markdown[end:])])


def _targets(markdown: str, here: str) -> list[str]:
    """Return the paths in the repository that a file links to."""
    found: list[str] = []
    _outside_code(markdown, lambda text: found.extend(link["target"] for link in _LINK.finditer(text)) or text)
    return [_resolved(target, here) for target in found if not _is_elsewhere(target)]


def _is_elsewhere(target: str) -> bool:
    return target.startswith("#") or re.match(r"[a-z]+:", target) is not None


def _resolved(target: str, here: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target.partition("#")[0]))


def _copy(target: str) -> str:
    return f"{_COPIES}/{target}" if target.endswith(".md") else f"{_COPIES}/{target}.md"


def _page(path: Path, target: str) -> str:
    text = path.read_text()
    if target.endswith(".md"):
        return text
    language = "sh" if text.startswith("#!") else _LANGUAGES.get(path.suffix, "text")
    return f"# {target}\n\n`````{language}\n{text.rstrip()}\n`````\n"


def _redirected(target: str, origin: str, here: str, files: Files) -> str:
    """Return a link of a file of the repository as it has to be on the site; one that leads nowhere stays, and is warned of."""
    if _is_elsewhere(target):
        return target
    resolved = _resolved(target, origin)
    anchor = target.partition("#")[2]
    there = resolved.removeprefix("docs/") if resolved.startswith("docs/") else _copy(resolved)
    if files.get_file_from_path(there) is None:
        return target
    return posixpath.relpath(there, posixpath.dirname(here)) + (f"#{anchor}" if anchor else "")
