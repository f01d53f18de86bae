"""MOSSBench (Li et al. 2024): harmless questions about harmless pictures that look or sound dangerous.

What is counted is over-refusal, in all and for each of its three types of stimulus. The authors forbid to train on it.
"""

from __future__ import annotations

import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source(
    "https://github.com/xirui-li/MOSSBench",
    "CC BY-SA 4.0, not for training",
    "data/images_information/information.json and data/images",
)
FILE = "images_information/information.json"
TYPES = {
    "type 1": "exaggerated risk",
    "type 2": "negated harm",
    "type 3": "counterintuitive interpretation",
}
COUNT = 300


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The questions in file order. Pictures are found from the folder above the one of the file.

    Raises:
      UserError: missing or broken file, or a record with a wrong or missing field.
    """
    path = SOURCE.find(settings, f"data/{FILE}", FILE)
    folder = pathlib.Path(settings.images) if settings.images else path.parent.parent
    drawn = stand_ins.read_note(folder, "mossbench")
    items = []
    for id_, value in files.read_object(path).items():
        origin = f"{path}: record {errors.short(id_)}"
        if not isinstance(value, dict):
            raise errors.UserError(f"{origin} must be an object, not {files.kind(value)}")
        about = value.get("metadata")
        kind = about.get("over") if isinstance(about, dict) else None
        if not isinstance(kind, str) or kind not in TYPES:
            raise errors.UserError(f"{origin}: its 'over' in 'metadata' must be one of {', '.join(TYPES)}")
        question = records.text_field(value, "question", origin)
        picture = records.check_picture_path(records.text_field(value, "image", origin), origin)
        items.append(
            benchmark_lib.Item(
                id_,
                subset,
                question,
                (benchmark_lib.Picture(picture, folder / picture),),
                category=TYPES[kind],
                stand_in=drawn or stand_ins.marked(settings, question),
            )
        )
    return items


def stand_in(folder: pathlib.Path) -> None:
    """Write the file with harmless questions, and drawn pictures."""
    values = {
        str(i + 1): {
            "image": f"images/{i + 1}.png",
            "question": stand_ins.question(i),
            "pid": str(i + 1),
            "metadata": {"over": f"type {i % 3 + 1}"},
        }
        for i in range(COUNT)
    }
    stand_ins.write_json(folder / "data" / FILE, values)
    stand_ins.draw_all(folder / "data", (f"images/{i + 1}.png" for i in range(COUNT)), "mossbench")


BENCHMARK = benchmark_lib.Benchmark(
    name="mossbench",
    title="MOSSBench",
    metrics={"mossbench": "refusal_rate"},
    counts={"mossbench": COUNT},
    load=load,
    source=SOURCE,
    stand_in=stand_in,
)
