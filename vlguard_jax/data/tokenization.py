"""From a record to the sample that is trained on: everything that determines its length, in one place.

Which tokens are learnt is decided in families/chat/conversations.py.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from vlguard_jax import fingerprints
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

ANY = types.Size(1, 1)  # for families whose pictures take the same slots at any size


@dataclasses.dataclass(frozen=True)
class Tokenization:
    """`max_len`: where conversations are truncated, before and after image expansion; 0: the family's default."""

    tokenizer: tokenizer_lib.Tokenizer
    template: conversations.Template
    model: family.Config
    max_len: int

    @property
    def sees(self) -> family.Pictures | None:
        """The family's pictures; None for a language model."""
        return table.of(self.model).pictures

    @property
    def sized(self) -> bool:
        """Whether a picture's slots depend on its size."""
        return self.sees is not None and self.sees.sized

    @property
    def cuts(self) -> bool:
        """Whether a conversation may end inside a picture. If so, all pictures take the same slots."""
        return self.sees is None or self.sees.cut

    @property
    def fingerprint(self) -> str:
        """sha256 over everything that determines tokens, labels and lengths, except sizes of pictures."""
        slots = self.extents([ANY])[0].slots if self.cuts else None
        return fingerprints.of(self.tokenizer.fingerprint, self.template.sha256, slots, self.max_len)

    def extents(self, sizes: Sequence[types.Size]) -> list[types.Extent]:
        """The extents of the pictures of one conversation."""
        return self.sees.extents(self.model, sizes) if self.sees else [types.Extent(0, 0)] * len(sizes)

    def tokens(self, record: types.Record) -> types.Tokens:
        """Ids and labels before image expansion."""
        return conversations.tokenize(record, self.tokenizer, self.template, self.max_len)

    def sample(self, record: types.Record, extents: Sequence[types.Extent]) -> batches.Sample:
        """The sample of a record, without pixels. extents: of the record's pictures."""
        return self.expand(self.tokens(record), [extent.slots for extent in extents])

    def expand(self, tokens: types.Tokens, slots: Sequence[int], *, whole: bool = False) -> batches.Sample:
        """`tokens` with `slots[k]` slots for the k-th picture, truncated at `max_len` unless `whole`."""
        return batches.expand(tokens, slots, None if whole else self.max_len, self.tokenizer.masked_id)
