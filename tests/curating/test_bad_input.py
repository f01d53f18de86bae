"""What a user can get wrong: one line that names it, before anything is asked, and nothing is lost."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import pytest

from tests.curating import made
from tests.curating import model as model_lib
from tests.curating import world as world_lib
from tests.endpoints import server as server_lib
from vlguard_jax import errors
from vlguard_jax.curating import scan

URL = "http://127.0.0.1:9/v1"  # where nobody listens


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> world_lib.World:
    return world_lib.build(tmp_path_factory.mktemp("bad"), 6, 1, 1)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"pictures": {"path": ""}}, "config.pictures.path is empty"),
        ({"pictures": {"path": "no/where"}}, "no/where: no such folder (config.pictures.path)"),
        ({"pictures": {"against": ("no/where",)}}, "no/where: no such folder (config.pictures.against)"),
        ({"pictures": {"group_bits": 3}}, "config.pictures.group_bits=3 is less than config.pictures.near_bits=10"),
        ({"ask": {"least_words": 300}}, "config.ask.least_words=300 is more than config.ask.most_words=200"),
        ({"ask": {"languages": ()}}, "config.ask.languages: name at least one"),
        ({"ask": {"prompt": "no.txt"}}, "no.txt: no such file"),
        ({"ask": {"taxonomy": "no.toml"}}, "no.toml: no such file"),
        ({"ask": {"most_alike": 0.0}}, "config.ask.most_alike=0.0 must be a number from 0.01 to 1"),
        ({"review": {"decisions": "no/where"}}, "no/where: no such folder (config.review.decisions)"),
        ({"endpoint": {"max_calls": 0}}, "config.endpoint.max_calls=0: nothing may be asked"),
        ({"endpoint": {"max_dollars": 0.0}}, "config.endpoint.max_dollars=0: nothing may be asked"),
        ({"endpoint": {"input_price": -1.0}}, "config.endpoint: what 'seer' costs is not known"),
        ({"endpoint": {"base_url": "here"}}, "config.endpoint.base_url='here'"),
        ({"endpoint": {"model": ""}}, "config.endpoint.model is empty"),
        ({"endpoint": {"key_env": "NO_SUCH_KEY"}}, "NO_SUCH_KEY"),
        ({"top": {"answerer": "checkpoint"}}, "needs config.model.path"),
        ({"top": {"answerer": "oracle"}}, "config.answerer='oracle' is unknown"),
        ({"split": {"test_share": 1.0}}, "config.split.test_share=1.0 must be"),
    ],
)
def test_settings(world: world_lib.World, tmp_path: pathlib.Path, sections, told: str) -> None:
    with pytest.raises(errors.UserError) as caught:
        made.curate(made.config(world, URL, **{"endpoint": {}, **sections}), tmp_path / "run")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "dataset").exists() and not (tmp_path / "run" / "replies.jsonl").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "no picture in this folder or below it (config.pictures.path), but nothing at all"),
        (("a.txt", "b/c.json"), "but 2 other files; pictures are files whose names end with .jpg"),
        (("pictures.zip", "a.txt"), "but an archive 'pictures.zip', which must be unpacked first"),
        ((".hidden/a.png",), "but nothing at all"),
    ],
)
def test_a_folder_without_pictures(world: world_lib.World, tmp_path: pathlib.Path, names, told: str) -> None:
    (tmp_path / "p").mkdir()
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / name).write_bytes(b"x")
    with pytest.raises(errors.UserError) as caught:
        made.curate(made.config(world, URL, pictures={"path": str(tmp_path / "p")}), tmp_path / "run")
    assert told in str(caught.value) and str(caught.value).startswith(str(tmp_path / "p"))


def test_links_to_folders_are_told(world: world_lib.World, tmp_path: pathlib.Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "more").symlink_to(world.folder)
    with pytest.raises(errors.UserError, match="but a link to a folder 'more', which is not followed: put the folder"):
        made.curate(made.config(world, URL, pictures={"path": str(tmp_path / "p")}), tmp_path / "run")
    for name in ("Case.png", "case.png"):
        (tmp_path / "p" / name).write_bytes(b"x")
    notices = scan.scan(tmp_path / "p", tmp_path / "notes", "config.pictures.path").notices
    assert len(notices) == 2 and "links to folders, whose pictures were not read: 1, 'more' first" in notices[0]
    assert "in upper and lower case alone: 1, 'Case.png' and 'case.png' first" in notices[1]


def test_a_picture_that_changes_while_it_is_asked_about(world: world_lib.World, tmp_path: pathlib.Path) -> None:
    """A reply about another picture would be kept under its name."""
    folder = tmp_path / "p"
    shutil.copytree(world.folder, folder)
    paths = sorted(path for path in folder.rglob("*.png"))
    model = model_lib.Model(world)
    last: list[pathlib.Path] = []

    def changing(body: Any, before: int) -> server_lib.Answer:
        if not last:
            last.append(paths[-1])
            paths[-1].write_bytes(paths[0].read_bytes())
        return model(body, before)

    with server_lib.serving(changing) as server:
        chosen = made.config(world, server.url, pictures={"path": str(folder)}, endpoint={"concurrency": 1})
        with pytest.raises(errors.UserError, match=r"was changed while this ran; run this again"):
            made.curate(chosen, tmp_path / "run")
        lines = (tmp_path / "run" / "replies.jsonl").read_text().splitlines()
        assert lines and paths[-1].name not in {json.loads(line)["picture"] for line in lines}
        assert made.curate(chosen, tmp_path / "run").done.written


@pytest.mark.parametrize("below", ["", "out"])
@pytest.mark.parametrize("setting", ["path", "against"])
def test_a_workdir_among_the_pictures(world: world_lib.World, tmp_path: pathlib.Path, below: str, setting: str) -> None:
    (tmp_path / "p").mkdir()
    pictures = {"path": str(tmp_path / "p")} if setting == "path" else {"against": (str(tmp_path / "p"),)}
    with pytest.raises(errors.UserError, match=rf"lies in .*/p \(config\.pictures\.{setting}\)"):
        made.curate(made.config(world, URL, pictures=pictures), tmp_path / "p" / below)
    assert not list((tmp_path / "p").iterdir())


def test_only_bad_pictures(world: world_lib.World, tmp_path: pathlib.Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(b"")
    with pytest.raises(errors.UserError, match="of 0 records in 0 groups of like pictures none is left for train"):
        made.curate(made.config(world, URL, pictures={"path": str(tmp_path / "p")}), tmp_path / "run")
    (line,) = (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "unreadable" and "the file is empty" in line


def test_a_budget_that_ends_keeps_what_was_replied_and_a_higher_one_goes_on(
    world: world_lib.World, tmp_path: pathlib.Path
) -> None:
    with model_lib.serving(model_lib.Model(world)) as model:
        with pytest.raises(errors.UserError, match=r"config\.endpoint: .*budget \d+ \(") as caught:
            made.curate(made.config(world, model.url, endpoint={"max_calls": 7}), tmp_path / "run")
        assert "max_calls" in str(caught.value) and len(model.asked) == 7
        assert len((tmp_path / "run" / "replies.jsonl").read_text().splitlines()) == 7
        assert not (tmp_path / "run" / "dataset").exists()
        run = made.curate(made.config(world, model.url), tmp_path / "run")
        assert set(model.asked.values()) == {1} and run.done.written


@pytest.mark.parametrize("name", ["replies.jsonl", "pictures.jsonl", "config.json", "endpoint/calls.jsonl"])
def test_a_damaged_file_of_the_workdir_is_named(world: world_lib.World, tmp_path: pathlib.Path, name: str) -> None:
    with model_lib.serving(model_lib.Model(world)) as model:
        config = made.config(world, model.url)
        made.curate(config, tmp_path / "run")
        path = tmp_path / "run" / name
        data = path.read_bytes()
        path.write_bytes(b"{" + data)
        if name.startswith("endpoint"):  # read only where something is to be asked
            config = made.config(world, model.url, ask={"languages": ("Danish",)})
        with pytest.raises(errors.UserError, match=name.rpartition("/")[2].replace(".", r"\.")):
            made.curate(config, tmp_path / "run")
        path.write_bytes(data)
        assert made.curate(config, tmp_path / "run").done.made.chosen


def test_a_dataset_folder_of_others_stays(world: world_lib.World, tmp_path: pathlib.Path) -> None:
    (tmp_path / "run" / "dataset").mkdir(parents=True)
    (tmp_path / "run" / "dataset" / "mine.txt").write_text("mine")
    with (
        model_lib.serving(model_lib.Model(world)) as model,
        pytest.raises(errors.UserError, match="holds something that curate has not made"),
    ):
        made.curate(made.config(world, model.url), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "dataset").iterdir()] == ["mine.txt"]


def test_what_a_server_rejects_is_left_out_and_counted(world: world_lib.World, tmp_path: pathlib.Path) -> None:
    class Picky(model_lib.Model):
        def __call__(self, body, before):
            answer = super().__call__(body, before)
            return server_lib.Answer("no such picture", status=400) if len(self.asked) == 3 else answer

    with model_lib.serving(Picky(world)) as model:
        run = made.curate(made.config(world, model.url, endpoint={"concurrency": 1}), tmp_path / "run")
        assert list(run.dropped.values()).count("rejected") == 1
        calls = sum(model.asked.values())
        again = made.curate(made.config(world, model.url, endpoint={"concurrency": 1}), tmp_path / "run")
        assert again.dropped == run.dropped and sum(model.asked.values()) == calls
