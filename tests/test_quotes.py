"""Own words: what each style of quoting leaves of a mail, language by language, and against people's annotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parsing.quotes import own_words
from tests.bench.parsing import bench_own_words


@pytest.mark.data
def test_annotated_mails_reach_the_goal(real_mail: Path) -> None:
    as_annotated, without_copies = bench_own_words(real_mail)
    assert as_annotated.value >= 0.985, as_annotated
    assert without_copies.value >= 0.985, without_copies


@pytest.mark.parametrize(
    "attribution",
    [
        "On Mon, 2 Mar 2020 at 18:04, Juan Ortiz <juan@quay.example> wrote:",
        "On Mon, 2 Mar 2020 at 18:04, Juan Ortiz <juan@quay.example>\nwrote:",
        "On 3/2/20, 6:04 PM, Juan Ortiz <\njuan@quay.example> wrote:",
        "Am 02.03.2020 um 18:04 schrieb Juan Ortiz:",
        "Le 2 mars 2020 à 18:04, Juan Ortiz <juan@quay.example> a écrit :",
        "El lun., 2 mar. 2020 a las 18:04, Juan Ortiz (<juan@quay.example>) escribió:",
        "Em seg., 2 de mar. de 2020 às 18:04, Juan Ortiz <juan@quay.example> escreveu:",
        "Il giorno lun 2 mar 2020 alle ore 18:04 Juan Ortiz <juan@quay.example> ha scritto:",
        "Op ma 2 mrt. 2020 om 18:04 schreef Juan Ortiz <juan@quay.example>:",
        "Den mån 2 mars 2020 kl 18:04 skrev Juan Ortiz <juan@quay.example>:",
        "man. 2. mar. 2020 kl. 18:04 skrev Juan Ortiz <juan@quay.example>:",
        "ma 2. maalisk. 2020 klo 18.04 Juan Ortiz (juan@quay.example) kirjoitti:",
        "W dniu 02.03.2020 o 18:04, Juan Ortiz pisze:",
        "pon., 2 mar 2020 o 18:04 Juan Ortiz <juan@quay.example> napisał(a):",
        "po 2. 3. 2020 v 18:04 odesílatel Juan Ortiz <juan@quay.example> napsal:",
        "пн, 2 мар. 2020 г. в 18:04, Juan Ortiz <juan@quay.example>:",
        "2 марта 2020 г., 18:04 пользователь Juan Ortiz <juan@quay.example> написал:",
        "2 Mar 2020 Pzt, 18:04 tarihinde Juan Ortiz şunu yazdı:",
        "2020-03-02 18:04 GMT+01:00 Juan Ortiz <juan@quay.example>:",
        "在 2020年3月2日,18:04,Juan Ortiz <juan@quay.example> 写道:",
        "2020年3月2日(月) 18:04 Juan Ortiz <juan@quay.example>:",
        "Juan Ortiz <juan@quay.example> writes:",
        "Juan Ortiz wrote",
    ],
)
def test_attributions_of_many_languages_go_with_their_quote(attribution: str) -> None:
    text = f"Hello Juan,\n\n{attribution}\n> How many lines?\n> Six?\n\nSix it is.\n\n> Who checks?\n\nLena."
    assert own_words(text) == "Hello Juan,\n\nSix it is.\n\nLena."


@pytest.mark.parametrize(
    "head",
    [
        "-----Original Message-----\nFrom: Ann\nSent: Monday\nTo: Bob\nSubject: Boats",
        "________________________________\nFrom: Ann <ann@b.example>\nSent: Monday\nTo: Bob\nSubject: Boats",
        "-----Ursprüngliche Nachricht-----\nVon: Ann\nGesendet: Montag\nAn: Bob\nBetreff: Boote",
        "-----Message d'origine-----\nDe : Ann\nEnvoyé : lundi\nÀ : Bob\nObjet : Bateaux",
        "-----Mensaje original-----\nDe: Ann\nEnviado el: lunes\nPara: Bob\nAsunto: Barcos",
        "*From:* Ann\n*Sent:* Monday\n*To:* Bob\n*Subject:* Boats and\n more boats",
        "Von: Ann\nAn: Bob\nDatum: 1.5.2001\nBetreff: Boote",
        "Begin forwarded message:\n\nFrom: Ann\nSubject: Boats\nDate: 1 May 2001\nTo: Bob",
        "发件人: Ann\n发送时间: 2001年5月1日\n收件人: Bob\n主题: 船",
    ],
)
def test_an_unmarked_copy_goes_in_an_answer_and_only_its_head_elsewhere(head: str) -> None:
    text = f"My answer.\n\n{head}\n\nDear Bob,\n\nboats?"
    assert own_words(text, answers=True) == "My answer."
    assert own_words(text) == "My answer.\n\nDear Bob,\n\nboats?"


def test_a_marked_copy_below_a_head_leaves_the_answers_between() -> None:
    text = "Hi.\n-----Original Message-----\nFrom: Ann\nTo: Bob\n\n> Boats?\n\nYes, two."
    assert own_words(text, answers=True) == "Hi.\n\nYes, two."


def test_an_answer_below_a_copy_that_opens_the_mail_stays() -> None:
    text = "-----Original Message-----\nFrom: Ann\nTo: Bob\n\nBoats?\n\nYes, two."
    assert "Yes, two." in own_words(text, answers=True)


def test_an_answer_stays_where_only_the_attribution_was_left_of_the_quote() -> None:
    text = "On Mon, 2 Mar 2020 at 18:04, Juan Ortiz wrote:\n\nSix it is.\n"
    assert own_words(text, answers=True) == "Six it is."


def test_what_follows_a_forwarded_message_stays() -> None:
    text = "See below.\n----- Forwarded message from Ann -----\n\nBoats?\n----- End forwarded message -----\nCan you help?"
    assert own_words(text, answers=True) == "See below.\nCan you help?"


@pytest.mark.parametrize("mark", ["| ", ": ", "} ", "JO> ", "-> ", "%"])
def test_quotes_with_another_mark_are_told_by_their_attribution(mark: str) -> None:
    quoted = f"{mark}How many?\n{mark}Six?" if mark != "%" else "% How many?\n% Six?"
    text = f"On 2 Mar 2020 at 18:04, juan@quay.example wrote:\n{quoted}\nSix it is."
    assert own_words(text) == "Six it is."
    assert own_words(f"{quoted}\nSix it is.") == f"{quoted}\nSix it is."


@pytest.mark.parametrize(
    ("below", "kept"),
    [
        ("-- \nLena Falk\nPier 4", ""),
        ("--\nLena Falk\nhttp://harbour.example", ""),
        ("-- \nRegards,\nLena", "\n\n-- \nRegards,\nLena"),
        ("-- \nthis goes on, as sentences do\nand more", "\n\n-- \nthis goes on, as sentences do\nand more"),
        ("Sent from my iPhone", ""),
        ("Von meinem iPad gesendet", ""),
        ("[[alternative HTML version deleted]]", ""),
        ("_______________________________________________\ncrew mailing list\ncrew@lists.example", ""),
        ("---------------------------------------------------------------------\nTo unsubscribe, e-mail: a@b.example", ""),
        ("-----BEGIN PGP SIGNATURE-----\n\niQEz\n=aaaa\n-----END PGP SIGNATURE-----", ""),
        ("-------------- next part --------------\nA non-text attachment was scrubbed...\nName: x", ""),
    ],
)  # fmt: skip
def test_what_stands_below_the_words(below: str, kept: str) -> None:
    assert own_words(f"The words.\n\n{below}") == f"The words.{kept}"


@pytest.mark.parametrize(
    "text",
    [
        "Three reasons:\n- cost\n- time\n-- and taste",
        "Ann wrote:\n\nnothing at all, as ever.",
        "On balance I agree with what you said:\nit is late.",
        "On CRAN since 2015-03-01 the check of a@b.example says\nthat all is well:",
        "From: the start, this was odd.\nTo: be fair, so was I.",
        "From: Ann <ann@b.example>\nCc: Bob <bob@c.example>\nSigned-off-by: Ann\n---\n a.c | 2 +-",
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new",
        "Title\n==========\n\ntext\n\n----------\n\nmore",
    ],
)
def test_the_authors_own_shapes_stay(text: str) -> None:
    assert own_words(text, answers=True) == text


@given(
    st.lists(
        st.sampled_from(["> q", "-- ", "a", "On 1 May 2001 a@b wrote:", "From: x", "To: y", "", " ", "____________", "Re:"])
    )
)
def test_own_words_are_lines_of_the_text_in_order_and_a_second_reading_takes_no_quote(lines: list[str]) -> None:
    kept = own_words("\n".join(lines)).split("\n")
    remaining = iter([*lines, ""])
    assert all(any(line == candidate for candidate in remaining) for line in kept if line.strip())
    assert not any(line.startswith(">") for line in kept)
