"""The offline extractor: what it reads out of plain sentences, and what it leaves alone."""

# Full-width marks are what people write.
# ruff: noqa: RUF001

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memori.augmentation.clauses import spoken
from memori.augmentation.dates import when
from memori.augmentation.grammar import RULES, VERBS, Rule, Verb
from memori.augmentation.languages import PHRASES, Phrase
from memori.augmentation.rules import RuleExtractor
from memori.types import ExtractedFact, StoredMessage

SATURDAY = datetime(2023, 5, 20, 12, tzinfo=UTC)


def read(content: str, *, author: str | None = None, at: datetime = SATURDAY) -> tuple[ExtractedFact, ...]:
    """Return the facts in one message of the user's."""
    return (
        RuleExtractor()
        .extract(
            [
                StoredMessage(
                    id=1,
                    session_id="s",
                    position=0,
                    exchange_id="x",
                    role="user",
                    content=content,
                    author=author,
                    at=at,
                )
            ]
        )
        .facts
    )


def triples(content: str, **values: str) -> list[tuple[str | None, str | None, str | None]]:
    """Return the subject, predicate and object of each fact in one message."""
    return [(fact.subject, fact.predicate, fact.object) for fact in read(content, **values)]  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [*RULES, *VERBS], ids=lambda row: row.example)
def test_each_row_reads_its_example(row: Rule | Verb) -> None:
    """Fails when a row of the table no longer finds what it is there for."""
    found = {fact.content: fact for fact in read(row.example)}
    assert row.gives in found
    assert found[row.gives].kind == row.kind
    assert found[row.gives].importance == row.importance


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("My favorite color is blue", [("user", "favorite_color", "blue")]),
        ("my favourite colour is blue!", [("user", "favorite_color", "blue")]),
        ("I live in Rome and work as a nurse", [("user", "lives_in", "Rome"), ("user", "works_as", "nurse")]),
        ("I\u2019m allergic to peanuts", [("user", "allergic_to", "peanuts")]),
        ("im allergic to nuts, eggs and soy", [("user", "allergic_to", thing) for thing in ("nuts", "eggs", "soy")]),
        ("i moved from Paris to Berlin", [("user", "lives_in", "Berlin"), ("user", "no_longer_lives_in", "Paris")]),
        ("I don't eat pork anymore", [("user", "no_longer_eats", "pork")]),
        ("I hate mushrooms but love truffles", [("user", "dislikes", "mushrooms"), ("user", "likes", "truffles")]),
        ("Hi, I'm Tom and I live in Porto", [("user", "name", "Tom"), ("user", "lives_in", "Porto")]),
        ("I work at Google as an engineer", [("user", "works_at", "Google"), ("user", "works_as", "engineer")]),
        ("I have two kids, Tom and Lea", [("user", "number_of_children", "two"), ("user", "has_child", "Tom"),
                                          ("user", "has_child", "Lea")]),
        ("my wife Anna is a teacher and loves tennis", [("user", "has_wife", "Anna"), ("Anna", "works_as", "teacher"),
                                                        ("Anna", "likes", "tennis")]),
        ("My sister lives in Milan", [("user's sister", "lives_in", "Milan")]),
        ("I live in Rome, do you know a good dentist?", [("user", "lives_in", "Rome")]),
        ("Since I live in Rome, what should I see?", [("user", "lives_in", "Rome")]),
        ("Thanks! I live in Rome. What about you?", [("user", "lives_in", "Rome")]),
        ("I live in Rome\nI work as a nurse", [("user", "lives_in", "Rome"), ("user", "works_as", "nurse")]),
        ("My favourite film is \u201cAmélie\u201d", [("user", "favorite_film", "Amélie")]),
        ("I like mac and cheese", [("user", "likes", "mac and cheese")]),
        ("My email is ann.b@example.org.", [("user", "email", "ann.b@example.org")]),
        ("I live in 東京 and love 寿司", [("user", "lives_in", "東京"), ("user", "likes", "寿司")]),
        ("My name is Мария", [("user", "name", "Мария")]),
        ("I'm from Mu\u0308nchen", [("user", "from", "München")]),
        ("My dog is called Łajka \U0001f436", [("user", "has_dog", "Łajka")]),
    ],
)  # fmt: skip
def test_ordinary_statements(content: str, expected: list[tuple[str, str, str]]) -> None:
    """Fails when a common way of putting things is not read, or is read wrongly."""
    assert triples(content) == expected


@pytest.mark.parametrize("row", PHRASES, ids=lambda row: row.example)
def test_each_phrase_of_another_language_reads_its_example(row: Phrase) -> None:
    """Fails when a statement in another language is not read, or is not kept in its own words."""
    (fact,) = read(f"{row.example}.")
    assert (fact.content, fact.object, fact.kind, fact.subject) == (row.example, row.object, row.kind, "user")


def test_two_statements_of_one_sentence_in_another_language() -> None:
    """Fails when the second statement is swallowed by the first one's object."""
    assert triples("Vivo en Roma y trabajo como enfermera") == [
        ("user", "lives_in", "Roma"),
        ("user", "works_as", "enfermera"),
    ]
    assert triples("我住在北京，我喜欢喝茶。") == [("user", "lives_in", "北京"), ("user", "likes", "喝茶")]


@pytest.mark.parametrize(
    "content",
    [
        "Where do I live?",
        "Do you know that I live in Rome?",
        "I live in Rome?",
        "hello, how are you",
        "Thanks, you too!",
        "If I lived in Rome I would be happy.",
        "If I live in Rome, I need a visa.",
        "I wish I had a dog.",
        "Imagine I live in Rome.",
        "In my novel, I live in Rome.",
        "My character lives in Rome and loves cats.",
        "write me a poem about a dog that lives in Rome",
        "Please write a story in which I live in Rome",
        "Translate to French: I live in Rome. I work as a nurse.",
        "Translate this into German:\nI live in Rome.\nI work as a nurse.",
        "Please proofread the following text\n\nI live in Rome.",
        "He lives in Rome. She works as a nurse.",
        "They love hiking and hate tea.",
        'She said "I live in Rome".',
        "She told me \u201cI am allergic to nuts\u201d yesterday",
        "```\nI live in Rome.\n```",
        "`I live in Rome`",
        "> I live in Rome.",
        "Bob: I live in Rome.\nAnn: I work as a nurse.",
        '{"bio": "I live in Rome"}',
        "You live in Rome.",
        "I'm not a doctor.",
        "I'm not vegetarian.",
        "I love it!",
        "I love you so much",
        "I like how you think",
        "I like that.",
        "I'd love to.",
        "Yeah, I love to.",
        "I've been staring at it for ages",
        "I live here.",
        "Call me back tomorrow",
        "Never mind.",
        "Don't worry about it.",
        "I think so.",
        "I'm happy today",
        "I have a question",
        "I want you to write an email",
        "My password is hunter2",
        "¿Vivo en Madrid?",
        "No me gusta el té",
        "Je n'aime pas le thé",
        "Ich mag keinen Tee",
        "Ich mag dich",
        "Io penso che sia bello",
        "Я не люблю чай",
        "我不喜欢喝茶",
        "他住在北京",
        "我住在北京吗？",
        "彼は大阪に住んでいますか？",
        "أعيش في القاهرة",
        "Mieszkam w Krakowie",
        "I",
        "my",
        "I live in",
        "My name is",
        "my favorite color is",
    ],
)
def test_what_states_nothing_of_the_user_gives_nothing(content: str) -> None:
    """Fails when a question, a task, a supposition, a quotation or another person becomes a fact of the user's."""
    assert read(content) == ()


def test_content_stands_alone() -> None:
    """Fails when a fact still speaks in the first person, and so of whoever reads it."""
    assert [
        fact.content for fact in read("I live with my parents. My goal is to finish my novel before I turn 40.")
    ] == [
        "The user lives with their parents.",
        "The user's goal is to finish their novel before they turn 40.",
    ]


def test_an_author_is_the_subject() -> None:
    """Fails when what Caroline says is filed under the user."""
    facts = read("I live in Rome. My favorite color is blue. My brother loves chess.", author="Caroline")
    assert [(fact.subject, fact.content) for fact in facts] == [
        ("Caroline", "Caroline lives in Rome."),
        ("Caroline", "Caroline's favorite color is blue."),
        ("Caroline's brother", "Caroline's brother loves chess."),
    ]


def test_orders_among_people_are_no_rules() -> None:
    """Fails when what one person tells another becomes a rule for the assistant."""
    assert read("Always keep smiling! Never give me up.", author="Caroline") == ()
    assert [fact.kind for fact in read("Please always answer in French.", author="Caroline")] == ["rule"]


def test_a_hedge_lowers_confidence() -> None:
    """Fails when a guess counts as much as a statement."""
    certain, guess = read("I live in Rome.")[0], read("I think I live in Rome, maybe.")[0]
    assert guess.object == certain.object == "Rome"
    assert guess.confidence < certain.confidence


def test_what_matters_most_is_most_important() -> None:
    """Fails when an allergy weighs no more than yesterday's walk."""
    allergy, event = read("I'm allergic to bees. I went to the zoo yesterday.")
    assert allergy.importance > 0.8 > 0.5 > event.importance


def test_an_event_has_its_own_time() -> None:
    """Fails when what happened last Saturday is dated by the message, or its date is lost from the words."""
    (fact,) = read("Last Saturday I ran a marathon")
    assert (fact.kind, fact.predicate, fact.object) == ("event", "ran", "marathon")
    assert fact.valid_from == datetime(2023, 5, 13, tzinfo=UTC)
    assert fact.content == "The user ran a marathon on 13 May 2023."


def test_a_move_begins_with_the_move() -> None:
    """Fails when the new home holds from when it was told instead of from the move."""
    berlin, _, paris = read("I moved from Paris to Berlin last month")
    assert berlin.valid_from == paris.valid_from == datetime(2023, 4, 1, tzinfo=UTC)
    assert (berlin.predicate, paris.predicate) == ("lives_in", "no_longer_lives_in")


@pytest.mark.parametrize(
    ("content", "times"),
    [
        ("I moved to Berlin last month", [datetime(2023, 4, 1, tzinfo=UTC), None]),
        ("I have lived in Berlin since 2010", [datetime(2010, 1, 1, tzinfo=UTC), None]),
        ("I moved to Berlin in 2010", [datetime(2010, 1, 1, tzinfo=UTC)]),
        ("I live in Berlin", [None]),
    ],
)
def test_what_began_and_still_holds_is_said_of_both_times(content: str, times: list[datetime | None]) -> None:
    """Fails when a vague beginning lets an older statement win over what was said last."""
    assert [(fact.object, fact.valid_from) for fact in read(content)] == [("Berlin", at) for at in times]


def test_a_plan_holds_from_now() -> None:
    """Fails when a plan is dated in the future, where no recall would find it."""
    (fact,) = read("I'm planning to visit Japan in April")
    assert fact.valid_from is None
    assert fact.content == "The user is planning to visit Japan in April 2024."


@pytest.mark.parametrize(
    ("words", "start", "phrase"),
    [
        ("yesterday", (2023, 5, 19), "on 19 May 2023"),
        ("the day before yesterday", (2023, 5, 18), "on 18 May 2023"),
        ("last night", (2023, 5, 19), "on 19 May 2023"),
        ("last Saturday", (2023, 5, 13), "on 13 May 2023"),
        ("last Friday", (2023, 5, 19), "on 19 May 2023"),
        ("last Tues", (2023, 5, 16), "on 16 May 2023"),
        ("on Monday", (2023, 5, 15), "on 15 May 2023"),
        ("next Friday", (2023, 5, 26), "on 26 May 2023"),
        ("tomorrow", (2023, 5, 21), "on 21 May 2023"),
        ("3 days ago", (2023, 5, 17), "on 17 May 2023"),
        ("two weeks ago", (2023, 5, 6), "in the week of 6 May 2023"),
        ("a month ago", (2023, 4, 20), "in April 2023"),
        ("about five years ago", (2018, 5, 20), "in 2018"),
        ("last week", (2023, 5, 8), "in the week of 8 May 2023"),
        ("last weekend", (2023, 5, 13), "on the weekend of 13 May 2023"),
        ("last month", (2023, 4, 1), "in April 2023"),
        ("last year", (2022, 1, 1), "in 2022"),
        ("last summer", (2022, 6, 1), "in summer 2022"),
        ("last June", (2022, 6, 1), "in June 2022"),
        ("in March", (2023, 3, 1), "in March 2023"),
        ("in September", (2022, 9, 1), "in September 2022"),
        ("in 2010", (2010, 1, 1), "in 2010"),
        ("since 2010", (2010, 1, 1), "since 2010"),
        ("for 3 years", (2020, 5, 20), "since 2020"),
        ("on May 5", (2023, 5, 5), "on 5 May 2023"),
        ("on 5th of August 2021", (2021, 8, 5), "on 5 August 2021"),
        ("Feb 29", (2020, 2, 29), "on 29 February 2020"),
        ("on 2021-03-04", (2021, 3, 4), "on 4 March 2021"),
    ],
)
def test_times(words: str, start: tuple[int, int, int], phrase: str) -> None:
    """Fails when a time is computed wrongly, which is worse than no time."""
    found = when(f"I did it {words}, gladly", SATURDAY)
    assert found is not None
    assert (found.start, found.phrase) == (datetime(*start, tzinfo=UTC), phrase)


@pytest.mark.parametrize(
    "words", ["a few years ago", "the other day", "some day", "31 February 2020", "999 years old", "I may go", "Feb 30"]
)
def test_vague_and_impossible_times_are_none(words: str) -> None:
    """Fails when a date is made up."""
    assert when(words, SATURDAY) is None


@pytest.mark.parametrize("at", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
@pytest.mark.parametrize("words", ["999 years ago", "tomorrow", "last month", "next Friday", "last winter"])
def test_times_at_the_ends_of_the_calendar(at: datetime, words: str) -> None:
    """Fails when a time that the calendar does not hold raises."""
    read(f"I went to the zoo {words}", at=at)


def test_only_the_users_own_text_is_kept() -> None:
    """Fails when code or quotations around a statement swallow it, or slip in."""
    text = "I live in Rome.\n```python\nname = 'I live in Oslo'\n```\n> I live in Lima\nI speak Greek."
    assert spoken(text) == "I live in Rome.\nI speak Greek."


SHAPES = [
    "a",
    " ",
    "I ",
    "my ",
    "I live in ",
    ", ",
    " and I",
    '"',
    '"a ',
    "`",
    "\n",
    ".",
    ". ",
    "<",
    "a:",
    "oh ",
    "so, ",
    "my favorite ",
    "please ",
    "my wife ",
    "e\u0301",
    "\u201c",
    "\u201c ",
    "«",
    "「",
    "translate ",
    "please always ",
    "I think ",
    "yesterday ",
    "for 3 years ",
    "1 ",
    "我住在北京\uff0c",
    "I live in Rome and work as a nurse. ",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_linear_in_the_length(shape: str) -> None:
    """Fails when a pattern backtracks: eight times the text must not take much more than eight times as long."""

    def seconds(length: int) -> float:
        text = shape * (length // len(shape))
        began = time.perf_counter()
        read(text)
        return time.perf_counter() - began

    assert seconds(100_000) < 40 * max(min(seconds(12_500) for _ in range(3)), 0.002)


@given(st.text(max_size=300), st.sampled_from(["", "I live in ", "My name is ", "I like ", "my wife ", "Today I "]))
@settings(max_examples=400, deadline=None)
def test_no_text_breaks_it(text: str, opening: str) -> None:
    """Fails when some text raises, or leaves a fact that is not fit to store."""
    for fact in read(opening + text):
        assert fact.content.strip()
        assert fact.subject
        assert fact.predicate
        assert fact.object
        assert 0 < fact.confidence <= 1
