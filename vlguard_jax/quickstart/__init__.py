"""The whole story in miniature, on a world drawn by code: `python -m vlguard_jax.quickstart`."""
