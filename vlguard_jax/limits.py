"""How much of other people's data is taken: every limit on foreign input stands here, each with its reason.

A limit is far beyond what sound input has and far below what would harm the machine. docs/security.md shows them as a table. Sizes are
looked at before memory is taken.
"""

from __future__ import annotations

JSON_BYTES = 1 << 28  # of a JSON file that is read whole; records of bigger ones are read one by one

PICKLE_BYTES = 1 << 21  # of the pickle in a torch file: 150 of them a tensor
ZIP_DIRECTORY_BYTES = 1 << 24  # of a torch file's directory: 60 a tensor
SAFETENSORS_HEADER_BYTES = 1 << 24  # 120 a tensor
DIMENSIONS = 16  # of a stored tensor; weights have up to 5
REPEATED = 1 << 24  # numbers of a tensor in a torch file that repeats what is stored (strides of 0)

LINE = 1500  # characters of a message, or of a foreign text in a line or a table's cell; a longer one keeps its beginning and end
