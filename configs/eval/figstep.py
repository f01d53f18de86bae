r"""FigStep: attack success of 500 pictures of a list whose heading is a harmful request.

  python -m vlguard_jax.evaluate --config configs/eval/figstep.py:released --config.model.path=MODEL \
      --config.benchmark.path=FIGSTEP_DIR --workdir runs/figstep

FIGSTEP_DIR is the repository ThuCCSLab/FigStep, with data/question/safebench.csv and data/images/SafeBench (`python -m vlguard_jax.prepare
figstep --source FIGSTEP_DIR` checks them). All pictures are asked with the one question of its authors. `--config.benchmark.name=figstep_tiny`:
the 50 of SafeBench-Tiny; `figstep_rendered`: the same texts in pictures drawn by `prepare figstep_rendered`, a benchmark of its own.

A copy may have a picture that is cut or broken: prepare and evaluate name it and stop. Get it again, or leave its question out with
`--config.benchmark.on_bad_picture=skip`: the table then says n = 499 of 500, skipped.jsonl names the picture, and the paper is not compared.

Presets as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("figstep", preset or "released")
