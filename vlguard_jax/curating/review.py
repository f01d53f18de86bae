"""The pages on which people accept, edit or reject the records of a set (reporting/review_page.py)."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import replies
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.curating import taxonomy as taxonomy_lib
from vlguard_jax.data import images
from vlguard_jax.reporting import embedded
from vlguard_jax.reporting import review_page

FOLDER = "review"  # below the working directory
KINDS = {False: ("unsafe", replies.UNSAFE), True: ("safe", replies.SAFE)}
HEADINGS = {
    "category": "Category",
    "subcategory": "Subcategory",
    "unsafe_instruction": "Instruction that should be declined",
    "response": "Answer that declines",
    "safe_question": "Harmless question",
    "safe_answer": "Its answer",
    "unsafe_question": "Question that should be declined",
    "unsafe_answer": "Answer that declines",
    "unsafe_question_category": "Category of that question",
    "unsafe_question_subcategory": "Subcategory of that question",
}
CHOICES = (
    review_page.Choice(decisions.ACCEPT, "a", "Accept", "The record is right: picture, label, questions and answers."),
    review_page.Choice(
        decisions.EDIT, "e", "Edit", "It is right as you change it; Esc leaves a text, o goes on.", edits=True
    ),
    review_page.Choice(
        decisions.REJECT, "r", "Reject", "It does not belong into the set, or the picture is mislabelled."
    ),
)


def write(
    out: pathlib.Path,
    outcomes: Sequence[asking.Outcome],
    pictures: pathlib.Path,
    config: settings_lib.CurateConfig,
    taxonomy: taxonomy_lib.Taxonomy,
) -> tuple[pathlib.Path, ...]:
    """Write the pages about these labelled pictures into the folder `out`, in place of those of before; returns them in
    order. A page with the same records as before is the same page, in which a browser finds its work again.

    pictures: their folder.

    Raises:
      UserError: a picture was changed while this ran.
    """
    pages: dict[str, str] = {}
    labelled = [(one, one.found) for one in outcomes if isinstance(one.found, replies.Labelled)]
    for safe, (kind, keys) in KINDS.items():
        here = [(one, label) for one, label in labelled if label.safe == safe]
        parts = [here[first : first + config.review.per_page] for first in range(0, len(here), config.review.per_page)]
        for number, part in enumerate(parts, 1):
            name = f"{kind}-{number:03d}"
            sheet = review_page.Sheet(
                title=f"{config.title}: {kind} pictures, page {number} of {len(parts)}",
                introduction=_introduction(kind, taxonomy),
                noun="record",
                choices=CHOICES,
                records=tuple(_record(one, label, pictures, keys) for one, label in part),
                file=name,
                format="json",
                shuffle=False,
                veil=not config.pictures.stand_in,
            )
            pages[f"{name}.html"] = review_page.render(sheet)
    if not pages and not out.exists():
        return ()
    with folders.new_folder(out, replace=True) as beside:
        for name, text in pages.items():
            (beside / name).write_text(text, encoding="utf-8")
    return tuple(out / name for name in pages)


def _introduction(kind: str, taxonomy: taxonomy_lib.Taxonomy) -> tuple[str, ...]:
    names = "; ".join(f"{c}: {', '.join(taxonomy.below(c))}" for c in taxonomy.categories)
    return (
        f"A model found these pictures {kind} and wrote the texts. Look at the picture, read the texts, and accept,"
        " edit or reject the record. A picture that is labelled wrongly is rejected.",
        f"Categories and subcategories: {names}.",
        "Put the saved file into the folder of decisions and run the same command again.",
    )


def _record(
    one: asking.Outcome, label: replies.Labelled, pictures: pathlib.Path, keys: Sequence[str]
) -> review_page.Record:
    path = pictures / one.picture.name
    try:
        with open(path, "rb") as file:
            picture = embedded.embed(images.to_rgb(file))
    except (images.Fault, OSError) as e:
        raise errors.UserError(f"{path}: was changed while this ran: {images.reason(e)}; run this again") from e
    return review_page.Record(
        key=one.picture.sha256,
        parts=(review_page.Part("Picture", one.picture.name), review_page.Part("Language", one.language)),
        pictures=(picture,),
        fields=tuple(review_page.Field(key, HEADINGS[key], getattr(label, key) or "") for key in keys),
        constants={decisions.SHOWN: label.sha256},
    )
