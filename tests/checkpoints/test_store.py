"""The training store: whole steps, any sharding, and nothing silent about what is damaged."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import store

META = {"config": {"seed": 1}, "config_hash": "c0ffee", "base": "abc"}


def mesh(*shape: int) -> jax.sharding.Mesh:
    count = int(np.prod(shape))
    return jax.make_mesh(shape, ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=jax.devices()[:count])


def tree(sharding: jax.sharding.Sharding, value: float = 0.0) -> dict[str, Any]:
    kernel = jnp.arange(64.0).reshape(8, 8) + value
    return {
        "params": {
            "kernel": jax.device_put(kernel, sharding),
            "half": jax.device_put(kernel.astype(jnp.bfloat16), sharding),
            "none": None,
        },
        "moments": {"kernel": jax.device_put(-kernel, sharding), "empty": {}},
        "count": jnp.int32(3),
    }


def abstract(like: dict[str, Any], sharding: jax.sharding.Sharding) -> dict[str, Any]:
    def leaf(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding if x.ndim else jax.NamedSharding(sharding.mesh, jax.P())
        )

    return jax.tree.map(leaf, like)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def saved(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    state = tree(jax.NamedSharding(mesh(4, 2), jax.P("x", "y")))
    steps = store.Store(folder)
    steps.save(5, state, META | changes)
    steps.close()
    return state


@pytest.mark.parametrize(
    ("shape", "spec"), [((4, 2), ("x", "y")), ((2, 4), ("y", None)), ((1, 8), (None, "y")), ((1, 1), (None, None))]
)
def test_restore_onto_another_mesh(tmp_path: pathlib.Path, shape: tuple[int, int], spec: tuple) -> None:
    state = saved(tmp_path / "s")
    steps = store.Store(tmp_path / "s")
    sharding = jax.NamedSharding(mesh(*shape), jax.P(*spec))
    found = steps.restore(5, abstract(state, sharding))
    assert_same(found, state)
    assert found["params"]["kernel"].sharding.is_equivalent_to(sharding, 2)
    assert found["params"]["none"] is None and found["moments"]["empty"] == {}
    steps.close()


def test_a_restore_warns_of_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Orbax does where a folder is read as what it is not."""
    state, said = saved(tmp_path / "s"), list[logging.LogRecord]()
    monkeypatch.setattr(logging.getLogger("absl"), "handle", said.append)
    with contextlib.closing(store.Store(tmp_path / "s")) as steps:
        steps.restore(5, abstract(state, jax.NamedSharding(mesh(1, 1), jax.P())))
        steps.read_meta(5)
    logging.getLogger("absl").warning("heard")
    assert [record.getMessage() for record in said if record.levelno >= logging.WARNING] == ["heard"]


def test_the_record(tmp_path: pathlib.Path) -> None:
    saved(tmp_path / "s")
    steps = store.Store(tmp_path / "s")
    record = steps.read_meta(5)
    steps.close()
    assert record["step"] == 5 and record["format_version"] == header.FORMAT_VERSION and "layout_version" in record
    assert {k: record[k] for k in META} == META
    assert record["versions"]["jax"] == jax.__version__
    assert record["arrays"]["params.half"] | {"checksum": ""} == {"shape": [8, 8], "dtype": "bfloat16", "checksum": ""}
    assert "params.none" not in record["arrays"]


def test_newest_steps_are_kept_and_saving_may_donate(tmp_path: pathlib.Path) -> None:
    sharding = jax.NamedSharding(mesh(4, 2), jax.P("x", "y"))
    change = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    steps = store.Store(tmp_path / "s", keep=2)
    assert steps.latest_step() is None
    for step in (1, 2, 3):
        state = tree(sharding, value=float(step))
        steps.save(step, state, META)
        change(state)
    assert steps.latest_step() == 3
    assert_same(steps.restore(2, abstract(tree(sharding), sharding)), tree(sharding, 2.0))
    with pytest.raises(errors.UserError, match="no step 1 here; the newest is 3"):
        steps.read_meta(1)
    steps.close()


def test_an_interrupted_save_is_ignored_and_cleaned(tmp_path: pathlib.Path) -> None:
    saved(tmp_path / "s")
    for name in ("6.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp-123"):
        (tmp_path / "s" / name / "state").mkdir(parents=True)
        (tmp_path / "s" / name / "state/part").write_text("half")
    steps = store.Store(tmp_path / "s")
    assert steps.latest_step() == 5
    steps.close()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["5"]


@pytest.mark.parametrize("other", [1, 3])
def test_other_format_versions_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, other: int) -> None:
    monkeypatch.setattr(header, "FORMAT_VERSION", other)
    state = saved(tmp_path / "s")
    monkeypatch.undo()
    steps = store.Store(tmp_path / "s")
    with pytest.raises(errors.UserError, match=f"5: format_version is {other}, this program reads 2"):
        steps.read_meta(5)
    with pytest.raises(errors.UserError, match=f"format_version is {other}"):
        steps.restore(5, abstract(state, jax.NamedSharding(mesh(1, 1), jax.P())))
    steps.close()


def test_other_arrays_are_refused(tmp_path: pathlib.Path) -> None:
    state = saved(tmp_path / "s")
    steps = store.Store(tmp_path / "s")
    sharding = jax.NamedSharding(mesh(1, 1), jax.P())
    wanted = abstract(state, sharding)
    fewer = {k: v for k, v in wanted.items() if k != "count"}
    more = wanted | {"extra": jax.ShapeDtypeStruct((2,), jnp.float32, sharding=sharding)}
    longer = wanted | {"moments": {"kernel": jax.ShapeDtypeStruct((9, 8), jnp.float32, sharding=sharding)}}
    for asked, message in (
        (fewer, "count: saved is int32"),
        (more, "extra: saved is nothing"),
        (longer, r"moments.kernel: saved is float32\[8, 8\]"),
    ):
        with pytest.raises(errors.UserError, match=message):
            steps.restore(5, asked)
    steps.close()


def test_changed_arrays_are_noticed(tmp_path: pathlib.Path) -> None:
    state = saved(tmp_path / "s")
    record = next((tmp_path / "s/5/meta").rglob("metadata"))
    content = json.loads(record.read_text())
    content["arrays"]["moments.kernel"]["checksum"] = "00000000"
    record.write_text(json.dumps(content))
    steps = store.Store(tmp_path / "s")
    with pytest.raises(errors.UserError, match=r"moments\.kernel is not what was saved \(checksum\)"):
        steps.restore(5, abstract(state, jax.NamedSharding(mesh(1, 1), jax.P())))
    record.write_text("{")
    with pytest.raises(errors.UserError, match="5: damaged record"):
        steps.read_meta(5)
    steps.close()


def test_the_checksum_sees_values_and_places() -> None:
    x = jnp.arange(24.0).reshape(2, 3, 4)
    base = store._describe(x)["checksum"]
    assert base == store._describe(np.asarray(x))["checksum"]
    assert base != store._describe(x.at[1, 2, 3].add(1e-6 * 23))["checksum"]
    for axis in range(3):
        assert base != store._describe(jnp.flip(x, axis))["checksum"]
    assert store._describe(jnp.float32(0.0)) != store._describe(jnp.float32(-0.0))


def test_damaged_array_files_are_noticed(tmp_path: pathlib.Path) -> None:
    state = saved(tmp_path / "s")
    files = [p for p in (tmp_path / "s/5/state").rglob("*") if p.is_file() and p.parent.name == "d"]
    assert files
    for path in files:
        path.write_bytes(b"\0" * len(path.read_bytes()))
    steps = store.Store(tmp_path / "s")
    with pytest.raises(errors.UserError, match="5: damaged: "):
        steps.restore(5, abstract(state, jax.NamedSharding(mesh(1, 1), jax.P())))
    steps.close()


def test_a_name_that_is_not_utf8_is_told_before_the_first_save(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match="its name is not UTF-8"):
        store.Store(tmp_path / os.fsdecode(b"a\xff"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["-5", "007", "99999999999999999999", "+6", "1_0", "\u0663", " 8"])
def test_odd_numbers_of_steps_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "s" / name).mkdir(parents=True)
    with pytest.raises(errors.UserError, match="is not the number of a step; remove it, or choose another --workdir"):
        store.Store(tmp_path / "s")


def test_links_are_refused_and_what_they_lead_to_stays(tmp_path: pathlib.Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "s"
    (outside / "6.orbax-checkpoint-tmp").mkdir(parents=True)
    (outside / "kept").touch()
    folder.symlink_to(outside)
    with pytest.raises(errors.UserError, match="s must be a folder, not a link"):
        store.Store(folder)
    folder.unlink()
    (folder / "5").mkdir(parents=True)
    (folder / "5/state").symlink_to(outside)
    with pytest.raises(errors.UserError, match="step '5' holds a link, 'state'"):
        store.Store(folder)
    (folder / "5/state").unlink()
    os.mkfifo(folder / "5/manifest.ocdbt")
    with pytest.raises(errors.UserError, match=r"step '5' holds a pipe or a device, 'manifest\.ocdbt'"):
        store.Store(folder)
    (folder / "5/manifest.ocdbt").unlink()
    (folder / "5").rmdir()
    (folder / "5").symlink_to(outside)
    with pytest.raises(errors.UserError, match="step '5' is not a folder"):
        store.Store(folder)
    (folder / "5").unlink()
    (folder / "6.orbax-checkpoint-tmp").symlink_to(outside)
    (folder / "thesis.orbax-checkpoint-tmp.bak").mkdir()
    steps = store.Store(folder)
    steps.close()
    assert sorted(p.name for p in outside.iterdir()) == ["6.orbax-checkpoint-tmp", "kept"]
    assert sorted(p.name for p in folder.iterdir()) == ["6.orbax-checkpoint-tmp", "thesis.orbax-checkpoint-tmp.bak"]


@pytest.mark.parametrize("content", ["[]", "null", '{"a":' * 50_000, ""])
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "state/_METADATA"])
def test_damaged_notes_of_orbax_end_in_one_line(tmp_path: pathlib.Path, name: str, content: str) -> None:
    expected = saved(tmp_path / "s")
    (tmp_path / "s/5" / name).write_text(content)
    try:
        steps = store.Store(tmp_path / "s")
        assert steps.latest_step() in (5, None)
        steps.restore(5, abstract(expected, jax.NamedSharding(mesh(4, 2), jax.P("x", "y"))))
    except errors.UserError as e:
        assert re.search(r"s(/5)?: (a step: |no step 5|)", str(e)) and "\n" not in str(e)


@pytest.mark.parametrize("name", ["state/_METADATA", "state/manifest.ocdbt", "meta/metadata"])
def test_a_folder_in_place_of_a_file(tmp_path: pathlib.Path, name: str) -> None:
    expected = saved(tmp_path / "s")
    (tmp_path / "s/5" / name).unlink()
    (tmp_path / "s/5" / name).mkdir()
    with pytest.raises(errors.UserError, match=r"^[^\n]*s/5[^\n]*: [^\n]*$"):
        store.Store(tmp_path / "s").restore(5, abstract(expected, jax.NamedSharding(mesh(4, 2), jax.P("x", "y"))))


def test_forged_records_are_refused(tmp_path: pathlib.Path) -> None:
    saved(tmp_path / "s")
    record = tmp_path / "s/5/meta/metadata"
    content = json.loads(record.read_text())
    array = content["arrays"]["params.half"]
    steps = store.Store(tmp_path / "s")
    for change in (
        *(
            {"arrays": value}
            for value in (
                None,
                [],
                {"a": 3},
                {"a": {}},
                {"a": array | {"shape": "8"}},
                {"a": array | {"shape": [-1, True]}},
            )
        ),
        *({"step": value} for value in (6, -5, "5", True, None)),
        *({"config": []}, {"config": None}, {"config_hash": 3}, {"base_sha256": None}, {"kind": "model"}),
    ):
        record.write_text(json.dumps(content | change))
        with pytest.raises(
            errors.UserError, match="5: damaged record: it is not what a training of this program writes"
        ):
            steps.read_meta(5)
    for text in ("[" * 100_000, "[]", "", "\xff", "1" * 5000):
        record.write_text(text)
        with pytest.raises(errors.UserError, match="5: damaged record: "):
            steps.read_meta(5)
    steps.close()


def test_a_pipe_beside_the_steps_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    saved(tmp_path / "s")
    os.mkfifo(pipe := tmp_path / "s/6.orbax-checkpoint-tmp")
    store.Store(tmp_path / "s").close()
    assert pipe.is_fifo()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_parameters_that_are_not_finite_are_refused(tmp_path: pathlib.Path, bad: float) -> None:
    """Nothing was learned from there on: every update would be skipped, and such a model exported."""
    sharding = jax.NamedSharding(mesh(4, 2), jax.P("x", "y"))
    state = tree(sharding)
    state["params"]["half"] = state["params"]["half"].at[3, 4].set(bad)
    steps = store.Store(tmp_path / "s")
    steps.save(5, state, META)
    steps.wait()
    with pytest.raises(errors.UserError, match=r"5: params\.half holds NaN or an infinity$"):
        steps.restore(5, abstract(state, sharding))
    steps.close()
