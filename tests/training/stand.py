"""A tiny untrained LLaVA folder and a handful of harmless conversations to train it on."""

import atexit
import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import threading
from typing import Any

from flax import nnx
import jax
import numpy as np
from PIL import Image
import pytest

from vlguard_jax import config
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava_next import config as next_config
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import model as quickstart_model

COUNT = 24
MODELS = {"llava": "init", "llava_next": "llava_next"}  # the folder of each family
VOCABULARY = 384  # with the added token; rows that a mesh can divide
_BUILD = mesh_lib.build
_ONE_AT_A_TIME = threading.Lock()


def write_model(folder: pathlib.Path, seed: int) -> None:
    """Write the quickstart's model, its tower random, as a LLaVA folder."""
    with tempfile.TemporaryDirectory() as name:
        tokenizer = pathlib.Path(name)
        quickstart_model.train_tokenizer(tokenizer, language_lib.sentences(), pieces=VOCABULARY - 1)
        assert quickstart_model.vocabulary_size(tokenizer) == VOCABULARY
        vision = quickstart_model.sizes(VOCABULARY).vision
        save.save_llava(quickstart_model.build(tokenizer, seed, random_tower(vision, seed)), folder)


def random_tower(vision: configs.VisionConfig, seed: int) -> dict[str, Any]:
    """Parameters of a tower without the seconds that its training takes: norms 1, the rest small."""
    rng = np.random.default_rng(seed)
    shapes = nnx.to_pure_dict(nnx.eval_shape(lambda: nnx.state(clip.Tower(vision, nnx.Rngs(0)))))

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        return (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def write_next(folder: pathlib.Path, source: pathlib.Path) -> None:
    """Write the model in `source`, a LLaVA folder, as a LLaVA-NeXT: the same weights, and a newline."""
    model = load.load(source)
    sizes = model.config
    assert isinstance(sizes, llava_config.LlavaConfig)
    points = next_config.of_v1_6(sizes.vision.image_size)
    made = next_config.LlavaNextConfig(sizes.text, sizes.vision, sizes.projector, points)
    newline = 0.1 * np.random.default_rng(0).standard_normal(sizes.text.width)
    params = {**model.params, "image_newline": newline.astype(np.float32)}
    save.save_llava(dataclasses.replace(model, config=made, params=params, extras={}), folder)


def folder() -> pathlib.Path:
    """init/ (a LLaVA folder), llava_next/ (LLaVA-NeXT), chats.json and pictures/; made once in a process, whichever
    threads ask.

    Nobody changes what is in it.
    """
    with _ONE_AT_A_TIME:
        return _made()


@functools.cache
def _made() -> pathlib.Path:
    root = pathlib.Path(tempfile.mkdtemp(prefix="vlguard_jax-tests-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_model(root / "init", seed=0)
    write_next(root / "llava_next", root / "init")
    (root / "pictures").mkdir()
    rng = np.random.default_rng(0)
    records = []
    for i in range(COUNT):
        question = f"what is the shape ? {'please ' * (i % 5)}"
        record: dict[str, Any] = {"id": f"chat-{i}"}
        if i % 4:
            Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(root / "pictures" / f"{i}.png")
            record["image"], question = f"{i}.png", f"<image>\n{question}"
        answer = "a red circle . " * (1 + i % 3 + 3 * (i // 4 % 2))
        record["conversations"] = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        records.append(record)
    (root / "chats.json").write_text(json.dumps(records))
    return root


def bare(root: pathlib.Path) -> pathlib.Path:
    """Write model/ (no weights), chats.json, pictures/ and config.py, which names them, into `root`: enough to plan and
    to count."""
    weights = (".safetensors", ".bin", ".index.json")
    shutil.copytree(folder() / "init", root / "model")
    removed = [path for path in (root / "model").rglob("*") if path.name.endswith(weights)]
    assert removed
    for path in removed:
        path.unlink()
    shutil.copytree(folder() / "pictures", root / "pictures")
    shutil.copy(folder() / "chats.json", root / "chats.json")
    (root / "config.py").write_text(
        "from vlguard_jax import config\n\n\ndef get_config():\n    c = config.base_train_config()\n"
        "    c.model.path = 'model'\n    c.data.cache = 'cache'\n    c.data.batch_size = 8\n    c.data.group_size = 4\n"
        "    c.data.max_len = 160\n    c.data.length_multiple = 16\n    c.optimizer.epochs = 2.0\n"
        "    c.data.sources = {'chats': config.source(path='chats.json', images='pictures')}\n    return c\n"
    )
    return root


def settings(**changes: Any) -> config.TrainConfig:
    """Three epochs of 3 updates of 8 conversations in groups of 4, fp32.

    `changes` replace sections by dicts of fields, or values.
    """
    root = folder()
    base = config.TrainConfig(
        model=config.ModelSettings(path=str(root / "init")),
        precision=config.PrecisionSettings("fp32", "fp32", "fp32"),
        data=config.DataSettings(
            sources={"chats": config.SourceSettings(path=str(root / "chats.json"), images=str(root / "pictures"))},
            max_len=160,
            length_multiple=160,
            batch_size=8,
            group_size=4,
        ),
        lora=config.LoraSettings(0, 8.0, 0.0),
        optimizer=config.OptimizerSettings(learning_rate=1e-3, epochs=2.0),
        run=config.RunSettings(remat="none", tensorboard=False, export="none"),
    )
    for name, value in changes.items():
        new = (
            dataclasses.replace(getattr(base, name), **value)
            if isinstance(value, dict) and name != "loss_args"
            else value
        )
        base = dataclasses.replace(base, **{name: new})
    return base


class _Kept:
    """Which programs JAX's compilation cache keeps, as an attribute that pytest can set and set back."""

    @property
    def from_seconds(self) -> float:
        return jax.config.jax_persistent_cache_min_compile_time_secs

    @from_seconds.setter
    def from_seconds(self, seconds: float) -> None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def use_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Train on the first `count` devices only.

    Programs of several CPU devices are not kept: read back from the compilation cache, some stood still in a
    collective.
    """
    monkeypatch.setattr(_Kept(), "from_seconds", 1.0 if count == 1 else 1e9)
    monkeypatch.setattr(mesh_lib, "build", lambda given: _BUILD(given, jax.devices()[:count]))


def metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("step_seconds", "tokens_per_second", "input_wait")}
        for line in lines
    ]
