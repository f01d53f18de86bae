"""What mkdocs does besides building: pages that are made from the code, and links to files that are no pages.

reference/: a page for each config class with every setting, the commands with their flags, the configs that come with
the program. A link out of docs/, as ../vlguard_jax/config.py, leads to a file of a checkout; on the site it is code.
"""

from __future__ import annotations

import ast
import functools
import os
import pathlib
import posixpath
import re
import subprocess
import sys

from mkdocs import exceptions
from mkdocs.structure import files as mkdocs_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vlguard_jax import __main__ as commands  # noqa: E402
from vlguard_jax import config as run_config  # noqa: E402
from vlguard_jax import reference  # noqa: E402
from vlguard_jax.curating import settings as curating  # noqa: E402
from vlguard_jax.preparing import cleaning  # noqa: E402

CONFIGS = {
    "train": (run_config.TrainConfig, "Settings of a training"),
    "evaluate": (run_config.EvalConfig, "Settings of an evaluation"),
    "curate": (curating.CurateConfig, "Settings of `curate`"),
    "clean": (cleaning.CleanConfig, "Settings of `prepare clean`"),
}
NAMED = re.compile(r"\[[\w/.]+\.md\]\(([\w/.]+\.md)(#[^)]*)?\)")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages that are made from the code."""
    pages = {f"{name}.md": functools.partial(settings_page, *told) for name, told in CONFIGS.items()}
    pages |= {"commands.md": commands_page, "configs.md": configs_page}
    for name, page in pages.items():
        files.append(mkdocs_files.File.generated(config, f"reference/{name}", content=page()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links out of docs/ into code, and name pages by their titles where a link says the file's name.

    Raises:
      PluginError: the checkout has no such file.
    """
    here = posixpath.dirname(page.file.src_uri)

    def code(found: re.Match) -> str:
        path = posixpath.normpath(posixpath.join("docs", here, found[2]))
        if not path.startswith("..") and path.split("/")[0] == "docs":
            return found[0]
        if not (ROOT / path).exists():
            raise exceptions.PluginError(f"{page.file.src_uri}: there is no {path} in the checkout")
        text = found[1].strip("`")
        return f"`{path}`" if path.endswith(text) else f"{found[1]} (`{path}`)"

    def titled(found: re.Match) -> str:
        file = ROOT / "docs" / here / found[1]
        return f"[{_title(file)}]({found[1]}{found[2] or ''})" if file.is_file() else found[0]

    return NAMED.sub(titled, OUTSIDE.sub(code, markdown))


def _title(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8").removeprefix("# ").partition("\n")[0]


def settings_page(kind: type, title: str) -> str:
    """A table of every section."""
    lines = [
        f"# {title}",
        "",
        "Made from the code. On the command line, each is `--config.NAME=VALUE`; `*` stands for a name",
    ]
    lines += ["that you choose, `[]` for each member of a list. The same in a terminal: `vlguard settings`.", ""]
    told, rows = reference.sections(kind), {}
    for one in reference.settings(kind):
        where, _, name = one.path.rpartition(".")
        cells = (_code(name), _code(repr(one.default)), str(one.rule), one.meaning)
        rows.setdefault(where, []).append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    for where, table in rows.items():
        lines += ["", f"## {where}" if where else "## At the top", "", told.get(where, ""), ""]
        lines += ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |", *table]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """What --help says of each."""
    lines = ["# Commands", "", "Made from the code: what `vlguard NAME --help` says.", ""]
    lines += ["| command | what it does |", "| --- | --- |"]
    lines += [f"| [{name}](#{name}) | {_cell(told)} |" for name, told in commands.COMMANDS.items()]
    for name in commands.COMMANDS:
        lines += ["", f"## {name}", "", "```text", _help(name), "```"]
    return "\n".join(lines) + "\n"


def _help(name: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "vlguard_jax", name, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def configs_page() -> str:
    """The first line of each config's docstring."""
    lines = [
        "# Configs",
        "",
        "Made from the code: what `--config` takes by name from any folder. Each file's docstring holds the exact",
    ]
    lines += ["command and what it needs; `--config NAME --print_config` shows every value.", ""]
    for folder in sorted({pathlib.Path(path).parent.name for path in (ROOT / "configs").rglob("*.py")}):
        lines += ["", f"## {folder}", "", "| config | what it is |", "| --- | --- |"]
        for path in sorted((ROOT / "configs" / folder).glob("*.py")):
            first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            lines.append(f"| {_code(f'{folder}/{path.stem}')} | {_cell(first)} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
