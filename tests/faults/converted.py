"""Hostile model folders on their whole way through a conversion: code beside the weights and configs that ask for it,
tensors and shards whose names lead elsewhere."""

from __future__ import annotations

import atexit
import functools
import json
import pathlib
import random
import shutil
import tempfile

import numpy as np

from tests.checkpoints import made
from tests.faults import sandbox
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save

CODE = "import os, pathlib\npathlib.Path('ran').write_text('x')\nos.system('touch ran')\n"
CLIMBING = ("../../outside/x", "/etc/x", "..", "model/../../x", "model.layers.0/../../../x", "a\0b", "~/x", "")
ASKING = (
    {"auto_map": {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}},
    {"auto_map": {"AutoConfig": "owner/name--configuration_evil.Evil"}, "trust_remote_code": True},
    {"custom_pipelines": {"text": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}}},
    {"architectures": ["os.system"], "torch_dtype": "__import__('os').system('touch ran')"},
    {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.Evil"}},
    {"tokenizer_class": "evil.Tokenizer", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}},
    {"processor_class": "evil.Processor", "_name_or_path": "<script>alert(1)</script>"},
)
TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch ran').read() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch ran') }}",
    "{{ self._TemplateReference__context }}",
)


@functools.cache
def _sound() -> tuple[pathlib.Path, str]:
    """A folder in llava-hf's layout, and the hash of its weights."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="vlguard_jax-faults-converted-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    save.save_hf(made.model(), top / "model")
    return top / "model", load.load(top / "model").weights_sha256


def _converted(folder: pathlib.Path, out: pathlib.Path) -> object:
    """The hash of the weights that a conversion leaves, with no code beside them."""
    save.save_llava(lora.merge(load.load(folder)), out)
    left = [path.name for path in out.rglob("*") if path.suffix in (".py", ".so", ".pyc")]
    assert not left, f"{left} was copied"
    return load.load(out).weights_sha256


def _rename(rng: random.Random, path: pathlib.Path) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    name = rng.choice([key for key in head if key != "__metadata__"])
    new = rng.choice(CLIMBING) + rng.choice(["", ".weight", name])
    if rng.random() < 0.5:
        head[new] = head.pop(name)
    else:  # one more, with data of its own
        end = max(entry["data_offsets"][1] for key, entry in head.items() if key != "__metadata__")
        head[new] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
        data += np.zeros(1, np.float32).tobytes()
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A folder with code and one thing wrong."""
    sound, right = _sound()
    where = folder / "model"
    shutil.copytree(sound, where)
    (where / "manifest.json").unlink(missing_ok=True)  # what is wrong here is what a stranger wrote
    for name in (
        "configuration_evil.py",
        "modeling_evil.py",
        "evil.py",
        "__init__.py",
        "conftest.py",
        "sitecustomize.py",
    ):
        (where / name).write_text(CODE)
    out = folder / "out"
    what = rng.choice(["sound", "config", "tokenizer config", "processor config", "template", "names", "index"])
    weights = next(iter(sorted(where.glob("*.safetensors"))))
    expected: object = right
    if what == "config":
        config = json.loads((where / "config.json").read_text())
        (where / "config.json").write_text(json.dumps(config | rng.choice(ASKING)))
    elif what in ("tokenizer config", "processor config"):
        path = where / f"{what.split()[0]}_config.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | rng.choice(ASKING)))
    elif what == "template":
        (where / "chat_template.jinja").write_text(rng.choice(TEMPLATES))
    elif what == "names":
        _rename(rng, weights)
        expected = sandbox.Nothing
    elif what == "index":
        target = rng.choice(["../../outside/shard.safetensors", "/etc/passwd", "..", "../model/" + weights.name])
        shutil.copy(weights, folder.parent / "outside" / "shard.safetensors")
        index = {"metadata": {}, "weight_map": {"model.language_model.norm.weight": target}}
        weights.unlink()
        (where / "model.safetensors.index.json").write_text(json.dumps(index))
        expected = sandbox.Nothing
    return sandbox.Trial(what, lambda: _converted(where, out), expected, must_read=what == "sound")
