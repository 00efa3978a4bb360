"""Texts of others in Markdown: they show what they say and change nothing around them."""

import re


def markdown_line(text: object) -> str:
    r"""Return a text as one line that cannot break out of a table and brings no HTML, link or picture.

    Code in backticks stays code.

    Example:
        >>> markdown_line("a | b\n<script>, see [this](http://x)")
        'a \\| b &lt;script>, see \\[this](http://x)'
    """
    line = " ".join(str(text).split())
    for sign, shown in (("\\", "\\\\"), ("|", "\\|"), ("&", "&amp;"), ("<", "&lt;"), ("[", "\\[")):
        line = line.replace(sign, shown)
    # A backtick without its partner would take what follows for code.
    return line.replace("`", "\\`") if line.count("`") % 2 or "``" in line else line


def markdown_code(text: object) -> str:
    """Return a text as code within a line.

    Example:
        >>> markdown_code("x: 1"), markdown_code("a `b`")
        ('`x: 1`', '`` a `b` ``')
    """
    line = " ".join(str(text).split())
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown_block(text: str, language: str) -> str:
    """Return a text of several lines as a block of code.

    Args:
        text: what it shows.
        language: how to colour it, e.g. `yaml`.
    """
    fence = "`" * max(3, _longest_run(text) + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
