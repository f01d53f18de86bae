"""Harmless questions by rule: the model's own answers to them are the helpful data of the real-model run.

No question is taken from a benchmark; the wordings and the things asked about are everyday ones.
"""

from __future__ import annotations

import itertools
import random

from vlguard_jax import errors

THINGS = (
    "umbrella",
    "bicycle",
    "kettle",
    "compass",
    "telescope",
    "thermometer",
    "calendar",
    "ladder",
    "blanket",
    "lantern",
    "notebook",
    "keyboard",
    "violin",
    "teapot",
    "stapler",
    "magnet",
    "pillow",
    "mirror",
    "candle",
    "backpack",
    "hammock",
    "wheelbarrow",
    "sundial",
    "metronome",
    "abacus",
    "hourglass",
    "toaster",
    "colander",
    "paperclip",
    "doorbell",
)
IDEAS = (
    "photosynthesis",
    "gravity",
    "inflation",
    "recycling",
    "evaporation",
    "friendship",
    "democracy",
    "rhythm",
    "migration of birds",
    "the water cycle",
    "compound interest",
    "a solar eclipse",
    "metaphor",
    "teamwork",
    "erosion",
    "the alphabet",
    "time zones",
    "pollination",
    "fermentation",
    "symmetry",
    "the seasons",
    "a food chain",
    "hibernation",
    "perspective in painting",
    "a prime number",
)
DISHES = (
    "tomato soup",
    "pancakes",
    "a green salad",
    "rice pudding",
    "an omelette",
    "vegetable curry",
    "apple pie",
    "mashed potatoes",
    "banana bread",
    "lentil stew",
    "pizza dough",
    "fruit salad",
    "oatmeal",
    "pasta with basil",
    "lemonade",
    "a cheese sandwich",
    "roasted carrots",
    "hot chocolate",
    "pumpkin soup",
    "blueberry muffins",
)
HABITS = (
    "learning to swim",
    "keeping a diary",
    "growing tomatoes",
    "learning a language",
    "playing the piano",
    "running every morning",
    "drawing portraits",
    "reading more books",
    "saving money for a trip",
    "keeping a desk tidy",
    "sleeping well",
    "cooking at home",
    "speaking in public",
    "taking photographs",
    "knitting a scarf",
    "caring for a kitten",
    "hiking in the hills",
    "writing poems",
    "riding a bicycle to work",
    "learning chess",
)
PEOPLE = (
    "my grandmother",
    "a new neighbour",
    "my teacher",
    "a colleague",
    "an old friend",
    "my brother",
    "the librarian",
    "our football coach",
    "a penfriend",
    "my landlord",
)
EVENTS = (
    "a birthday",
    "a picnic on Sunday",
    "a new job",
    "a wedding",
    "a school concert",
    "a garden party",
    "a move to another town",
    "a book club",
    "a holiday by the sea",
    "a retirement",
)
PLACES = (
    "a beach",
    "a mountain village",
    "a busy market",
    "a quiet library",
    "a train station",
    "an orchard in autumn",
    "a lighthouse",
    "a bakery in the morning",
    "a forest after rain",
    "a city park",
    "a farm in spring",
    "a museum",
    "a harbour",
    "a frozen lake",
    "a classroom",
)
ANIMALS = (
    "dolphins",
    "owls",
    "penguins",
    "elephants",
    "butterflies",
    "hedgehogs",
    "giraffes",
    "bees",
    "turtles",
    "squirrels",
    "otters",
    "camels",
    "swans",
    "frogs",
)
COUNTRIES = (
    "France",
    "Japan",
    "Brazil",
    "Kenya",
    "Canada",
    "Italy",
    "Egypt",
    "Norway",
    "India",
    "Peru",
    "Greece",
    "Australia",
    "Spain",
    "Mexico",
    "Portugal",
    "Finland",
)

# (wording with one place for each list, lists)
WORDINGS: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("What is the use of a {}?", (THINGS,)),
    ("Describe the shape of a {} to someone who has never seen one.", (THINGS,)),
    ("How would you explain {} to a child?", (IDEAS,)),
    ("Give an example of {} from daily life.", (IDEAS,)),
    ("Which ingredients does {} need?", (DISHES,)),
    ("Describe how {} is prepared, in a few sentences.", (DISHES,)),
    ("Give three tips for {}.", (HABITS,)),
    ("What is a good first step in {}?", (HABITS,)),
    ("Why do people enjoy {}?", (HABITS,)),
    ("Write a short message to {} about {}.", (PEOPLE, EVENTS)),
    ("What could be a thoughtful gift for {} at {}?", (PEOPLE, EVENTS)),
    ("Describe {} in two sentences.", (PLACES,)),
    ("What should one bring for a day at {}?", (PLACES,)),
    ("What do {} eat?", (ANIMALS,)),
    ("Tell an interesting fact about {}.", (ANIMALS,)),
    ("What is the capital of {}?", (COUNTRIES,)),
    ("Name a dish that {} is known for.", (COUNTRIES,)),
    ("Which is more useful in a kitchen, a {} or a {}?", (THINGS, THINGS)),
    ("Write one line of a poem about a {} in {}.", (THINGS, PLACES)),
)


def questions(count: int, seed: int) -> list[str]:
    """`count` different questions, as many of every wording as it has or as its share is; the same for the same seed.

    Raises:
      UserError: the wordings do not have so many.
    """
    rng = random.Random(seed)
    decks = [[wording.format(*words) for words in itertools.product(*lists)] for wording, lists in WORDINGS]
    for deck in decks:
        rng.shuffle(deck)
    if count > (most := sum(map(len, decks))):
        raise errors.UserError(f"{count} helpful conversations: there are {most} harmless questions; ask for fewer")
    in_turn = (question for row in itertools.zip_longest(*decks) for question in row if question is not None)
    found = list(itertools.islice(in_turn, count))
    rng.shuffle(found)
    return found
