"""`python launch/render.py` of the checkout, from anywhere: launch files to what starts their jobs."""

from __future__ import annotations

from absl import flags

from vlguard_jax import cli
from vlguard_jax import shipped

program = shipped.launching("render")
main = program.main
flags.adopt_module_key_flags(program)

if __name__ == "__main__":
    cli.run(main, doc=program.__doc__)
