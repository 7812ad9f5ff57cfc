"""The report: whole, self-contained, safe with hostile text, and right in its advice."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from byheart.evaluate import history, metrics, report, wording
from byheart.evaluate.advice import Advice, advise
from byheart.evaluate.coverage import Coverage, map_coverage
from byheart.evaluate.history import Level, Rejection, Step
from byheart.evaluate.metrics import Graded
from byheart.evaluate.questions import ANSWERABLE, GROUPS, SEEN
from byheart.records import Citation, Document, Grade, Prediction, Question, Section, Verdict

HOSTILE = "<script>alert('x')</script><img src=//evil.example/x onerror=alert(1)>\"'{{ 7*7 }}"
VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect", "col"}


class Page(HTMLParser):
    """Checks that tags nest, and collects them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def make_graded(
    number: int, group: str, verdict: Verdict, *, system: str = "byheart", text: str = "words", url: str = "p.md#a"
) -> Graded:
    question = Question(f"{group}-{number}", f"{text} {number}?", text, (text,), text, "qa", group)
    declined = verdict == "not attempted" or (verdict == "correct" and "outside" in group)
    citation = Citation(text, text, url, 0.5, "s0")
    prediction = Prediction(f"{system}-{question.id}", question.id, system, text, (citation,), 0.7, declined, 0.05)
    page_first = None if "outside" in group else verdict == "correct"
    return Graded(question, prediction, Grade(prediction.id, verdict, page_first, "key facts", text))


def make_group(group: str, right: int, wrong: int, *, declined: int = 0, system: str = "byheart") -> list[Graded]:
    verdicts: list[Verdict] = ["correct"] * right + ["incorrect"] * wrong + ["not attempted"] * declined
    return [make_graded(number, group, verdict, system=system) for number, verdict in enumerate(verdicts)]


def figures(graded: list[Graded], *systems: str) -> metrics.Metrics:
    return metrics.compute(
        graded=graded, systems=systems or ("byheart",), groups=GROUPS, answerable=ANSWERABLE, trained_on=(SEEN,)
    )


def make_coverage(
    text: str = "Section", *, url: str = "p.md#a", pages: int = 1, verdict: Verdict = "correct"
) -> Coverage:
    return map_coverage(
        documents=[Document(f"d{n}", text, text, "en", "", "", "") for n in range(pages)],
        sections=[Section(f"s{n}", f"d{n}", (text, text), url, "Text.", n, "") for n in range(pages)],
        verdicts={f"s{n}": [verdict] for n in range(pages)},
    )


def render(graded: list[Graded], *systems: str, title: str = "Manual", **changes: Any) -> str:
    inputs: dict[str, Any] = {
        "coverage": make_coverage(),
        "taught_sections": frozenset({"s0"}),
        "steps": [Step(1, 2.0, None), Step(2, 1.5, 1.8), Step(3, 1.2, 1.7), Step(4, 1.0, 1.9)],
        "levels": [Level(0.0, 100, 90, 60, 0.4, 0.99), Level(1.2, 100, 100, 50)],
        "rejections": [Rejection("near copy", 90, "how?", "0.97")],
    }
    about = report.Facts(title, "starter", "lora", 1, 1, 1, 1, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    return report.render(about=about, metrics=figures(graded, *systems), graded=graded, **{**inputs, **changes})


FULL = [
    *make_group("yours", 30, 10, declined=2),
    *make_group("yours", 20, 22, system="bm25"),
    *make_group("unseen phrasing", 30, 10),
    *make_group("outside", 18, 2),
]


@pytest.fixture(scope="module")
def whole() -> str:
    """The page with everything in it."""
    return render(FULL, "byheart", "bm25")


def test_the_page_holds_every_part_and_its_tags_nest(whole: str) -> None:
    page = Page(whole)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"next", "table", "map", "worst", "training", "confidence", "pairs"} <= ids
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 4
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert "questions of your own in full" in page.text
    assert "step 3, where it is lowest" in page.text


def test_the_page_asks_for_nothing_from_the_network(whole: str) -> None:
    page = Page(whole)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert tag == "a" or (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!['\"]?#)|@import", whole)
    assert "default-src 'none'" in whole


def test_ids_in_the_page_are_unique(whole: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(whole).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_figures_give_the_same_page(whole: str) -> None:
    assert render(FULL, "byheart", "bm25") == whole


def test_the_plots_follow_the_colours_of_the_page(whole: str) -> None:
    assert "var(--series-1)" in whole
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]\b", whole)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "JaVaScRiPt:x", "//evil.example/x", "p.md"])
def test_only_web_addresses_become_links(url: str) -> None:
    assert report.weblink(url) == ""
    assert report.weblink("https://help.example.com/a#b") == "https://help.example.com/a#b"


def test_hostile_text_from_pages_and_questions_is_shown_and_never_run() -> None:
    url = "javascript:alert(1)"
    graded = [make_graded(n, group, "incorrect", text=HOSTILE, url=url) for n, group in enumerate(GROUPS)]
    html = render(
        graded,
        title=HOSTILE,
        coverage=make_coverage(HOSTILE, url=url, verdict="incorrect"),
        rejections=[Rejection(HOSTILE, 900, HOSTILE, HOSTILE)],
    )
    page = Page(html)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "alert('x')" in page.text
    assert "{{ 7*7 }}" in page.text
    assert all((a.get("href") or "").startswith("#") for tag, a in page.tags if tag == "a")


def test_links_and_images_in_an_answer_are_not_followed_but_its_lists_are_drawn() -> None:
    item = make_graded(
        0, "yours", "incorrect", text="1. **Open**\n2. [x](javascript:alert) ![i](http://evil.example/i.png)"
    )
    html = render([item])
    assert "<strong>Open</strong>" in html
    assert "<img" not in html
    assert 'href="javascript' not in html


def test_web_addresses_of_sections_become_links() -> None:
    coverage = make_coverage(url="https://help.example.com/p#a", verdict="incorrect")
    assert '<a href="https://help.example.com/p#a" rel="noreferrer">' in render(FULL, coverage=coverage)


def test_missing_inputs_are_said_and_do_not_break_the_page() -> None:
    html = render(make_group("outside", 3, 0), steps=[], levels=[], rejections=[], coverage=Coverage((), 0))
    page = Page(html)
    assert "No training steps are recorded" in page.text
    assert "No temperature levels are recorded" in page.text
    assert "The manual has no section with text" in page.text
    assert "No questions in: unseen phrasing, seen phrasing." in page.text
    assert "no question went wrong" in page.text


def test_steps_without_a_validation_are_drawn() -> None:
    page = Page(render(FULL, steps=[Step(1, 2.0, None), Step(2, 1.0, None)]))
    assert "It was not measured in this run" in page.text


def test_a_map_of_3000_pages_stays_small() -> None:
    html = render(FULL, coverage=make_coverage("A heading of usual length", pages=3000))
    assert html.count('class="k"') == 3001  # and the legend
    assert len(html.encode()) < 700_000


def test_the_worst_questions_are_the_surest_wrong_ones_of_each_group_with_the_baselines_verdict() -> None:
    graded = [
        *make_group("yours", 1, 7, declined=1),
        *make_group("yours", 9, 0, system="bm25"),
        *make_group("seen phrasing", 0, 3),
        *make_group("outside", 1, 1),
    ]
    worst = report.worst_questions(metrics=figures(graded, "byheart", "bm25"), graded=graded)
    assert [w.item.question.group for w in worst] == ["yours"] * report.WORST_PER_GROUP + ["outside"]
    assert {w.item.grade.verdict for w in worst} == {"incorrect"}
    assert worst[0].others == (("keyword search", "correct"),)


def test_the_verdict_says_which_system_answers_more_and_whether_that_is_luck() -> None:
    better = [*make_group("yours", 40, 2), *make_group("yours", 20, 22, system="bm25")]
    assert "48 %, clearly fewer (p < 0.001)" in report.verdict_sentence(figures(better, "byheart", "bm25")).replace(
        "\u00a0", " "
    )
    worse = [*make_group("yours", 20, 22), *make_group("yours", 40, 2, system="bm25")]
    assert "clearly more" in report.verdict_sentence(figures(worse, "byheart", "bm25"))
    same = [*make_group("yours", 20, 22), *make_group("yours", 21, 21, system="bm25")]
    assert "no clear difference" in report.verdict_sentence(figures(same, "byheart", "bm25"))


def advice(graded: list[Graded], *systems: str, **changes: Any) -> list[Advice]:
    inputs: dict[str, Any] = {
        "coverage": make_coverage(),
        "pairs_by_section": frozenset({"s0"}),
        "levels": [],
        "rejections": [],
        "steps": [],
        "best": None,
    }
    return advise(metrics=figures(graded, *systems), **{**inputs, **changes})


def titles(graded: list[Graded], *systems: str, **changes: Any) -> str:
    return " | ".join(item.title for item in advice(graded, *systems, **changes))


HEALTHY = [*make_group("yours", 95, 5), *make_group("outside", 95, 5)]


def test_good_figures_get_no_advice_but_to_go_on() -> None:
    assert titles(HEALTHY) == "Put it before customers"


@pytest.mark.parametrize(
    ("graded", "title"),
    [
        (make_group("unseen phrasing", 9, 1), "Write down thirty real questions"),
        (make_group("yours", 9, 1), "Add more of your own questions"),
        ([*HEALTHY, make_graded(900, "yours", "unscored")], "Name key facts"),
        ([*make_group("yours", 99, 1), *make_group("outside", 8, 2)], "Let it decline more"),
        (make_group("yours", 90, 0, declined=10), "Let it answer more"),
        ([*HEALTHY, *make_group("seen phrasing", 9, 1), *make_group("unseen phrasing", 7, 3)], "more ways to ask"),
    ],
)
def test_each_figure_that_calls_for_action_gets_its_advice(graded: list[Graded], title: str) -> None:
    assert title in titles(graded)


def test_a_baseline_that_is_as_good_is_named() -> None:
    graded = [*HEALTHY, *make_group("yours", 94, 6, system="bm25"), *make_group("yours", 10, 90, system="untrained")]
    found = titles(graded, "byheart", "untrained", "bm25")
    assert "Not clearly better than the keyword search" in found
    assert "untrained" not in found


def test_sections_not_known_not_taught_and_not_asked_are_told_apart() -> None:
    assert "section it does not know" in titles(HEALTHY, coverage=make_coverage(verdict="incorrect"))
    unasked = make_coverage(verdict="unscored")
    assert "Ask about the whole manual" in titles(HEALTHY, coverage=unasked)
    assert "is not taught" in titles(HEALTHY, coverage=unasked, pairs_by_section=frozenset())


def test_training_that_ended_too_early_or_never_helped_is_told() -> None:
    for losses, title in (([1.0, 1.1, 1.2], "did not help"), ([1.2, 1.1, 1.0], "Train longer")):
        steps = [Step(n, 1.0, loss) for n, loss in enumerate(losses)]
        assert title in titles(HEALTHY, steps=steps, best=history.best_step(steps))


def test_the_loss_doctor_and_the_recall_in_training_are_shown_with_what_they_are_not() -> None:
    slow = {"diagnosis": "slow", "evidence": "unseen phrasing falls smoothly", "advice": "Double it."}
    steps = [
        Step(0, None, 2.0, 0.0),
        Step(1, 1.9, 1.9, 0.125, **slow, done="the learning rate was raised to 2 times the planned one"),
        Step(2, 1.8, 1.8, 0.25, **slow),
        Step(3, 1.7, 1.7, 0.5, diagnosis="healthy", evidence="unseen phrasing fell from 2.000 to 1.700"),
    ]
    html = render(FULL, steps=steps)
    text = " ".join(Page(html).text.split())
    assert (
        "Step 1: slow. Unseen phrasing falls smoothly. The learning rate was raised to 2 times the planned one." in text
    )
    assert "Step 2: slow" not in text  # said already
    assert "Step 3: healthy. Unseen phrasing fell" in text
    assert "from 0% at step 0 to 50% at step 3" in html
    assert "It is a small sample" in text
    assert "The loss doctor" not in Page(render(FULL)).text


def test_the_last_advice_of_the_loss_doctor_is_told_unless_it_was_followed_or_all_is_well_since() -> None:
    told = {"diagnosis": "jumpy", "evidence": "it goes up and down: 1, 2, 1", "advice": "Lower train.learning_rate."}
    steps = [Step(n, 1.0, loss) for n, loss in enumerate([1.0, 1.1, 1.2])]
    found = titles(HEALTHY, steps=[*steps, Step(3, 1.0, 1.0, **told)], best=steps[0])
    assert "The loss doctor says: jumpy" in found
    assert "did not help" not in found
    for after in (Step(3, 1.0, 1.0, **told, done="lowered"), Step(4, 1.0, 1.0, diagnosis="healthy")):
        assert "loss doctor" not in titles(HEALTHY, steps=[*steps, Step(3, 1.0, 1.0, **told), after], best=steps[0])


def test_a_reason_that_rejects_most_pairs_is_told() -> None:
    found = titles(HEALTHY, levels=[Level(0.0, 100, 90, 30)], rejections=[Rejection("near copy", 60, "", "")])
    assert "Look at the rejected pairs" in found


def test_steps_are_read_around_a_torn_line() -> None:
    text = '{"step": 1, "train_loss": 2.0, "unseen_loss": null}\n{"step": 2, "train_loss": 1, "unseen_loss": 1.5}\n{"st'
    assert history.parse_steps(text) == [Step(1, 2.0, None), Step(2, 1.0, 1.5)]
    assert history.best_step(history.parse_steps(text)) == Step(2, 1.0, 1.5)
    fault = '{"step": 3, "train_loss": null, "unseen_loss": null, "recall": null, "diagnosis": "not a number"}'
    assert history.parse_steps(fault) == [Step(3, None, None, None, "not a number")]


def test_levels_are_read_as_a_list_or_under_their_name() -> None:
    rows = """[{"temperature": 0.9, "asked": 5, "delivered": 4, "kept": 3, "distinctness": 1, "faithfulness": null},
               {"temperature": 0, "asked": 2, "kept": 2}]"""
    expected = [Level(0.0, 2, 2, 2), Level(0.9, 5, 4, 3, 1.0)]
    assert history.parse_levels(rows) == history.parse_levels(f'{{"levels": {rows}}}') == expected


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (1.0, "100 %"), (0.999, ">99 %"), (0.0, "0 %"), (0.001, "<1 %"), (0.714, "71 %")]
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert wording.percent(share).replace("\u00a0", " ") == text
