r"""A safety dataset like VLGuard out of your own pictures: labelled and written by a vision model, checked, split, with a data card.

  python -m vlguard_jax.curate --config configs/curate/vlguard.py --workdir runs/curated \
      --config.pictures.path=PICTURES --config.endpoint.base_url=http://localhost:8000/v1 --config.endpoint.model=MODEL \
      --config.endpoint.input_price=0 --config.endpoint.output_price=0

With VLGuard's test pictures kept out: `--config.pictures.against="('VLGUARD_DIR/test',)"`. A model of yours in place of an endpoint:
`--config.answerer=checkpoint --config.model.path=MODEL`. No refusal's opening above a fifth: `--config.ask.most_alike=0.2`. All settings:
vlguard_jax/curating/settings.py; the whole way: docs/curating.md.
"""

from vlguard_jax.curating import settings


def get_config():
    return settings.base_config()
