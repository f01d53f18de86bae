"""All limits on foreign input, each with its reason.

A limit is far above what valid input needs and far below what would harm the machine. docs/security.md shows them as a
table. Sizes are checked before memory is allocated.
"""

from __future__ import annotations

JSON_BYTES = 1 << 26  # of a JSON file that is read whole; records of bigger ones are read one by one
JSON_VALUES = 1 << 21  # values in one JSON document or record; each takes up to 250 bytes of memory
JSON_DEPTH = 100  # lists and objects within each other; records have up to 5
RECORD_BYTES = 1 << 24  # of one record, or of a line; the longest conversations have 1 MB
RECORDS = 1 << 21  # in one file, which is split beyond; LLaVA's mixture has 665,000
LAUNCH_BYTES = 1 << 20  # of a launch file
CURATE_BYTES = 1 << 20  # of a prompt or a taxonomy for `curate`: the shipped ones take 3,000
TAXONOMY = 1000  # names in one: VLGuard's has 20 or so, and each prompt shows all
REPLY_TEXT = 10_000  # characters of a question or an answer in a reply: 200 words have 1,300
QUESTION_BYTES = 1 << 20  # of a question to `ask`: the longest prompts of benchmarks have 10,000
CONVERSATION_BYTES = 1 << 22  # of a conversation with `ask --page`; what a model can read takes some 100,000
RESULT_BYTES = 1 << 28  # of a file of result lines: an answer takes 2,000

PICTURE_BYTES = 1 << 28  # of a picture's file: the largest picture, uncompressed
PICTURE_PIXELS = 1 << 26  # of a picture; half of it where the decoder takes twice the memory: JPEG 2000, WebP, AVIF
PICTURE_SIDE = 1 << 14  # pixels of a side; the square that a picture is padded to has the square of it
PICTURE_SCALED = 1 << 28  # pixels that mode "crop" may have to compute for a long narrow picture: a second or two
PICTURE_SCANNED = 1 << 30  # pixels times scans of a progressive JPEG; encoders write about 10 scans
PICTURES_DIRECTORY_BYTES = 160 << 20  # of the directory of an archive of pictures: 1.5 million of them
PICTURES_RATIO = 200  # of unpacked to packed size of a picture in an archive; pictures are compressed already
PICTURES_RATIO_FROM = 1 << 24  # bytes from which the ratio is checked: a small picture of one colour may have any
PARQUET_BYTES = 1 << 30  # that a Parquet file of pictures unpacks to: known ones to 30,000,000

CACHE_BYTES = 1 << 33  # of an entry of the cache: an index takes about 100 a record, a plan 12 a sample and epoch

PICKLE_BYTES = 1 << 21  # of the pickle in a torch file: 150 of them a tensor
ZIP_DIRECTORY_BYTES = 1 << 24  # of a torch file's directory: 60 a tensor
SAFETENSORS_HEADER_BYTES = 1 << 24  # 120 a tensor
GGUF_HEADER_BYTES = 1 << 26  # of a GGUF file, its vocabulary included: known ones have up to 16,000,000
DIMENSIONS = 16  # of a stored tensor; weights have up to 5
REPEATED = 1 << 24  # numbers of a tensor in a torch file that repeats what is stored (strides of 0)
GOLDEN_BYTES = 1 << 31  # of the arrays that `verify` compares with: 2,000,000 a prompt at 32,000 rows

EXPORT_RATIO = 50  # of an Orbax folder's arrays to its files: weights pack to two thirds, fresh adapters to a third
EXPORT_RATIO_FROM = 1 << 28  # bytes from which the ratio is checked: a small model of one number may have any

LINE = 1500  # characters of a message, or of a foreign text in a line or a cell; its beginning and end are kept

# What the JSON files of a model may say.
MODEL_SIZE = 1 << 20  # a width, heads, the rows of a vocabulary, the rank of adapters: up to 256,000 rows are known
LAYERS = 1 << 10  # known models have up to 126
PARAMETERS = 10**12  # in all; known models have up to 405 * 10**9
PATTERN = 1 << 16  # characters of a regular expression: one that lists every module of a model has 20,000
PATTERN_REPEATS = 1000  # product of its counts, as in {1,3}: so often a part of it is copied
PATTERN_SECONDS = 5  # that all of a file may take: one takes milliseconds
PINPOINTS = 64  # resolutions of a family that cuts pictures into tiles: known ones have up to 36
PINPOINT_TILES = 12  # along a side of one: known ones have up to 6
SIDE = 1 << 12  # pixels of a picture's side, or of a patch's, in a vision tower: 336
POSITIONS = 1 << 27  # tokens that a model was made for: known ones have up to 10,000,000
SMALLEST, LARGEST = 1e-30, 1e30  # of a positive number that float32 computes with
CHANNEL_SCALE = 1e3  # of a picture's mean, of its deviation and of one over it: pixels are between 0 and 1
NAME = 1000  # characters of a folder's or a model's name
TOKENIZER_BYTES = 1 << 25  # of a sentencepiece model: known ones have up to 4,300,000
TEMPLATE_BYTES = 1 << 18  # of a chat template: known ones have up to 30,000
TEMPLATE_SECONDS = 5  # of a rendering: known templates take a ten-thousandth
TEMPLATE_MEMORY = 1 << 29  # bytes that one may take where it is tried
TEMPLATE_OUTPUT = 1 << 25  # characters of a rendered conversation: twice the longest record

TEXT = 10_000  # characters of a setting, or of a name in a result file: paths have up to 4,096
