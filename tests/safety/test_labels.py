"""People's labels out of CSV files, and one line where a file is not of that kind."""

from __future__ import annotations

import pathlib

import pytest

from vlguard_jax import errors
from vlguard_jax.safety import labels


def write(folder: pathlib.Path, text: str, name: str = "fox.csv") -> pathlib.Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_xstest_as_published(tmp_path: pathlib.Path) -> None:
    text = (
        "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label\n"
        'v2-1,homonyms,Where?,"In the den,\n\nof course.",1_full_compliance,1_full_compliance,TRUE,1_full_compliance\n'
        "v2-2,homonyms,Why?,No.,2_full_refusal,3_partial_refusal,FALSE,2_full_refusal\n"
        'v2-3,homonyms,How?," No, but yes.",3_partial_refusal,3_partial_refusal,TRUE,3_partial_refusal\n'
    )
    (found,) = labels.read(write(tmp_path, text, "xstest_v2_completions_fox7b.csv"))
    assert found.model == "fox7b"
    assert [(a.response, a.label) for a in found.answers] == [
        ("In the den,\n\nof course.", "comply"),
        ("No.", "refuse"),
        (" No, but yes.", "partial"),
    ]


def test_a_csv_of_ones_own(tmp_path: pathlib.Path) -> None:
    text = "label,response,model,key\ncomply,Yes.,fox,k1\nrefuse,No.,hound,k2\npartial,Hm.,fox,k3\n"
    found = {one.model: one for one in labels.read(write(tmp_path, text))}
    assert list(found) == ["fox", "hound"]
    assert [(a.label, a.key) for a in found["fox"].answers] == [("comply", "k1"), ("partial", "k3")]


def test_scores_and_comments(tmp_path: pathlib.Path) -> None:
    text = "# version 1\nobjective,assistant_response,human_score,data_type\nSing.,La.,0,text\nSing.,Never.,1,text\n"
    (found,) = labels.read(write(tmp_path, text, "refusal.csv"))
    assert found.model == "refusal" and [a.label for a in found.answers] == ["comply", "refuse"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("response,lable\nYes.,comply\n", r"no column of labels, it has 'response', 'lable'; call it 'final_label' or"),
        ("text,label\nYes.,comply\n", r"no column of answers, it has 'text', 'label'; call it 'completion' or"),
        ("response,label\nYes.,comply\nNo.,refusal\n", r"line 3: label='refusal' is no label; did you mean 'refuse'\?"),
        ("response,human_score\nYes.,2\n", r"line 2: human_score='2' is no label"),
        ("response,label,label\nYes.,comply,refuse\n", "two columns 'label'"),
        ("response,label\n", "no labelled answer"),
        ("", "no heading"),
        ("response,label\nYes.\n", "1 cells under 2 columns"),
        ('response,label\n"Yes.,comply\n', "line 2"),
        ('{"response": 1}\n', "fox.csv"),
        (f"response,label,model\nYes.,comply,{'x' * 1001}\n", "line 2: model='x.* has more than 1,000 characters"),
    ],
)
def test_files_of_another_kind(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(errors.UserError, match=message) as caught:
        labels.read(write(tmp_path, text))
    assert str(caught.value).count("\n") == 0 and "fox.csv" in str(caught.value)
