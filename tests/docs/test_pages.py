"""Every page of the site, and README.md: each command runs, in a folder of the page's own, at tiny size."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import subprocess

import pytest

from tests import source
from tests.docs import pages
from tests.docs import recipes
from tests.docs import stands
from tests.docs import tools
from tests.endpoints import server as server_lib

PAGES = {**stands.PAGES, **recipes.PAGES}
# for programs that run for a moment
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
LONG = {  # more than ten seconds each
    *("adding_a_loss.md", "index.md", "own_data.md"),
    *("recipes/posthoc_tpu_vm.md", "recipes/published.md"),
}
AGAIN = {
    "asking.md",
    "recipes/audit_table1.md",
    "recipes/own_pictures.md",
    "recipes/posthoc_gpu.md",
}  # as much, and what others show


def name(page: pathlib.Path) -> str:
    return page.relative_to(pages.DOCS if pages.DOCS in page.parents else source.ROOT).as_posix()


def marks(page: str) -> list[pytest.MarkDecorator]:
    """How long a page takes, and whether it repeats others."""
    return [pytest.mark.parity] * (page in LONG) + [pytest.mark.more] * (page in AGAIN)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return stands.material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server_lib.serving(stands.reply) as server:
        yield server.url


def run(folder: pathlib.Path, text: str, page: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Write the files of a page into its folder, and run its commands."""
    found = list(pages.blocks(text))
    for file, content in pages.files(found).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    return subprocess.run(
        ["bash", "-c", pages.script(found, page)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=source.PATIENCE,
    )


def environment(folder: pathlib.Path, page: stands.Page, url: str) -> dict[str, str]:
    """One device, and programs that are compiled for one page are there for the next."""
    found = tools.write(folder, stands.flags(page, url))
    return found | {"XLA_FLAGS": QUICKLY, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "HOME": str(folder)}


@pytest.mark.parametrize(
    "page",
    [pytest.param(one, id=name(one), marks=marks(name(one))) for one in pages.pages()],
)
def test_every_command_of_a_page_runs(
    page: pathlib.Path, material: pathlib.Path, url: str, tmp_path: pathlib.Path
) -> None:
    needs = PAGES.get(name(page), stands.Page())
    stands.fill(tmp_path / "folder", material, needs)
    done = run(tmp_path / "folder", page.read_text(), name(page), environment(tmp_path / "tools", needs, url))
    assert done.returncode == 0, done.stdout[-4000:]


def test_pages_that_are_prepared_are_there() -> None:
    assert {*PAGES, *LONG, *AGAIN} <= {name(page) for page in pages.pages()}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("vlguard settings --off train", "Unknown command line flag 'off'"),
        ("vlguard trian", "'trian' is not a command of vlguard"),
        ("python -m vlguard_jax.train --config llava_v15_7b_posthok", "llava_v15_7b_posthok: no such file"),
        ("vlguard train --config own_data --config.modle.path=MODEL", "config.modle.path is not a setting"),
        ("vlguard prepare index --config rehearsal --config.model.path=NONE", "'NONE': no such folder"),
        ("cat NONE.txt | sort", "NONE.txt"),
        ("make quickstrat", "No rule to make target 'quickstrat'"),
        ("pip install -e '.[judges]'", "there is no extra judges"),
        ("python -m pip install mkdox", "mkdox is none of the project's requirements"),
        ("gcloud storage rm --recursively gs://b", "gcloud has no --recursively"),
        ("gcloud compute tpus make", "the command is not in gcloud_flags.json"),
        ("ssh host 'vlguard trian'", "'trian' is not a command of vlguard"),
        ("srun --nodes=2 vlguard trian", "'trian' is not a command of vlguard"),
        ("kubectl apply -f NONE.yaml", "there is no NONE.yaml"),
        ("hf download owner/name file.json --local-dir .", "there is no file.json"),
    ],
)
def test_a_wrong_command_fails_its_page(tmp_path: pathlib.Path, command: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    page = f"# Title\n\n```bash\ntrue\n{command}\necho not reached\n```\n"
    done = run(
        tmp_path / "folder", page, "wrong.md", environment(tmp_path / "tools", stands.Page(), "http://127.0.0.1")
    )
    assert done.returncode != 0 and says in done.stdout and "not reached" not in done.stdout
    assert "wrong.md:5: this command failed" in done.stdout


def test_a_page_is_run_in_order(tmp_path: pathlib.Path) -> None:
    """Files are there first; what is exported stays; a program that fails ends the page."""
    (tmp_path / "folder").mkdir()
    page = (
        "```bash\nexport A=1\ncat a/b.toml\n```\n"
        "* x\n\n    ```python\n    import os\n    print('A is', os.environ['A'])\n    ```\n"
        '```toml title="a/b.toml"\nb = 2\n```\n```text\nfalse\n```\n'
        "```python\n1 / 0\n```\n```bash\necho not reached\n```\n"
    )
    done = run(tmp_path / "folder", page, "x.md", environment(tmp_path / "tools", stands.Page(), "http://127.0.0.1"))
    assert done.returncode == 1 and done.stdout.startswith("b = 2\nA is 1\n") and "not reached" not in done.stdout
    assert "ZeroDivisionError" in done.stdout and "x.md:17: this command failed" in done.stdout


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("```\nls\n```\n", "line 1: ``` is none of"),
        ("\n```sh\nls\n```\n", "line 2: ```sh is none of"),
        ("```json\n{}\n```\n", "line 1: json must have a title"),
        ('```bash title="x.sh"\nls\n```\n', "line 1: bash must not have a title"),
        ("```bash\nls\n", "line 1: the fence is not closed"),
    ],
)
def test_a_fence_of_another_kind_is_refused(page: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(pages.blocks(page))


@pytest.mark.parametrize("name", ["a.py", "../a.py"])
def test_a_file_stands_once_and_inside(name: str) -> None:
    page = '```python title="a.py"\n```\n' + f'```python title="{name}"\n```\n'
    with pytest.raises(ValueError, match=r"line 3: .* is there already, or outside"):
        pages.files(list(pages.blocks(page)))
