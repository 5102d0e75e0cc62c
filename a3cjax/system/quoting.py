"""Foreign text in files that people open: it stays text, and reveals nothing of this machine."""

import re
import shlex

from a3cjax.errors import one_line

# A path from the root, from home or from here; the character before it is not part of a name.
_PATH = re.compile(r"(?:^|[^\w./@-])(?:~\w*|\.{1,2})?/")
PATH_SETTINGS = ("run_dir", "resume", "sweep_dir", "output")


def markdown(text: object) -> str:
    """Text on one line, escaped to have no meaning in Markdown or HTML, even within a table."""
    line = _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
    return re.sub(r"^(\d*)(?=[-+.)](?:\s|$)|[-=]+$)", r"\1\\", line)  # a list, a rule, a heading


def code(text: object) -> str:
    """Text on one line for a code span in Markdown, in which nothing can be escaped."""
    return _line(text).replace("`", "'").replace("|", "¦")


def word(path: object) -> str:
    """A path as a word of a command line; one that begins with a dash is no option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def cell(text: str) -> str:
    """Text for a cell of a CSV file: what spreadsheets would compute gets an apostrophe.

    As CWE-1236 and OWASP's ASVS 1.2.10 ask. Numbers stay numbers.
    """
    line = _line(text)
    try:
        float(line)
    except ValueError:
        return f"'{line}" if line.startswith(tuple("=+-@＝＋－＠")) else line
    return line


def without_folders(command: str) -> str:
    """A command line in which each path is reduced to its last part."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quotation
        words = command.split()
    shortened = [_last_part(word) for word in words]
    return command if shortened == words else shlex.join(shortened)


def _line(text: object) -> str:
    return one_line(str(text), max_length=100_000)


def _last_part(word: str) -> str:
    name, equals, value = word.partition("=")
    if not equals:
        name, value = "", word
    if name not in PATH_SETTINGS and not _PATH.search(value):
        return word
    return name + equals + value.rstrip("/'\"").rpartition("/")[2].lstrip("~")
