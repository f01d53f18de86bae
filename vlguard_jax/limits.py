"""How much of other people's data is taken: every limit on foreign input stands here, each with its reason.

A limit is far beyond what sound input has and far below what would harm the machine. docs/security.md shows them as a table. Sizes are
looked at before memory is taken.
"""

from __future__ import annotations

JSON_BYTES = 1 << 28  # of a JSON file that is read whole; records of bigger ones are read one by one
