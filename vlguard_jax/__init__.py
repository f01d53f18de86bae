"""Safety fine-tuning and evaluation of vision-language models in JAX."""

import sys

__version__ = "0.1.0"

# `python -m vlguard_jax.COMMAND`, which Python is about to import: from here on SIGTERM means 75
if sys.argv[:1] == ["-m"]:
    from vlguard_jax import stopping

    stopping.install()
