from __future__ import annotations

import collections

import pytest

from byheart.evaluate.grading import holds
from byheart.synthesize.help_centres import HelpCentre, help_centres, typical_questions

CENTRES = help_centres()


def test_there_are_sixty_products_of_different_kinds() -> None:
    assert len(CENTRES) == 60
    assert len({centre.kind for centre in CENTRES}) == 60
    assert len({centre.product for centre in CENTRES}) == 60


@pytest.mark.parametrize("centre", CENTRES, ids=lambda centre: centre.product)
def test_every_question_of_a_help_centre_is_answered_by_a_fact_in_its_sections_text(centre: HelpCentre) -> None:
    assert len(centre.sections) >= 25
    for section in centre.sections:
        assert len(section.questions) == 6
        missing = [fact for _, fact in section.questions if not holds(section.text, fact)]
        assert not missing, f"{section.title} > {section.heading}"


@pytest.mark.parametrize("centre", CENTRES, ids=lambda centre: centre.product)
def test_no_question_stands_in_a_help_centre_twice_nor_among_those_that_it_leaves_open(centre: HelpCentre) -> None:
    asked = [question for section in centre.sections for question, _ in section.questions]
    counted = collections.Counter([*asked, *centre.not_answered])
    assert [question for question, count in counted.items() if count > 1] == []
    assert len(centre.not_answered) >= 15


def test_one_question_of_every_section_is_typical_and_all_that_no_manual_answers() -> None:
    typical = typical_questions()
    answered = [item.question for item in typical if item.answered]
    sections = [section for centre in CENTRES for section in centre.sections]
    assert len(answered) == len(sections)
    kinds = collections.Counter(
        next(number for number, (question, _) in enumerate(section.questions) if question == chosen)
        for section, chosen in zip(sections, answered, strict=True)
    )
    assert max(kinds.values()) - min(kinds.values()) <= 1
    open_ = [item.question for item in typical if not item.answered]
    assert open_ == [question for centre in CENTRES for question in centre.not_answered]
