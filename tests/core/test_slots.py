"""Supersession: what holds when, whichever way and however often it was said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memori.augmentation.slots import content_hash, decide, single_valued, slot
from memori.types import Change, ExtractedFact, Fact, FactKind, Mention, NewFact, Retirement, Trust

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    """Return the instant that many days after the start."""
    return START + number * DAY


def said(
    predicate: str,
    thing: str,
    at: float | None = None,
    *,
    source: int | None = None,
    subject: str = "user",
    trust: Trust = "user",
    kind: FactKind = "fact",
    until: float | None = None,
) -> ExtractedFact:
    """Return a statement about the user."""
    return ExtractedFact(
        kind=kind,
        content=f"The user {predicate} {thing}.",
        subject=subject,
        predicate=predicate,
        object=thing,
        trust=trust,
        valid_from=None if at is None else day(at),
        valid_to=None if until is None else day(until),
        sources=() if source is None else (source,),
    )


class Rows:
    """The facts of an entity as a storage keeps them: applies changes as `Revision` says, and refuses what it must."""

    def __init__(self) -> None:
        self.facts: dict[int, Fact] = {}

    def hear(
        self, *candidates: ExtractedFact, at: float = 500, quarantined: Iterable[str] = (), again: bool = False
    ) -> Sequence[Change]:
        """Decide on *candidates* and apply the outcome, as one transaction."""
        wanted = {slot(candidate) for candidate in candidates}
        existing = sorted((fact for fact in self.facts.values() if fact.slot in wanted), key=lambda f: f.valid_from)
        changes = decide(candidates, existing, said_at=day(at), quarantined=set(quarantined), again=again)
        ids: dict[str, int] = {fact.content_hash: fact.id for fact in self.facts.values()}
        for change in changes:
            if isinstance(change, NewFact):
                assert change.content_hash not in ids, "content hashes are unique per entity"
                ids[change.content_hash] = number = len(self.facts) + 1
                self.facts[number] = self._stored(number, change)
        for change in changes:
            if isinstance(change, NewFact) and change.superseded_by is not None:
                number = ids[change.content_hash]
                self.facts[number] = replace(self.facts[number], superseded_by=ids[change.superseded_by])
            elif isinstance(change, Retirement):
                self.facts[change.fact_id] = replace(
                    self.facts[change.fact_id],
                    status="superseded",
                    valid_to=change.valid_to,
                    superseded_by=ids[change.superseded_by],
                )
            elif isinstance(change, Mention):
                fact = self.facts[change.fact_id]
                self.facts[change.fact_id] = replace(
                    fact,
                    mentions=fact.mentions + 1,
                    last_mentioned_at=max(fact.last_mentioned_at, change.at),
                    sources=tuple(dict.fromkeys(fact.sources + change.sources)),
                )
        return changes

    def _stored(self, number: int, change: NewFact) -> Fact:
        fact = change.fact
        return Fact(
            id=number,
            entity_id="ann",
            kind=fact.kind,
            content=fact.content,
            slot=change.slot,
            content_hash=change.content_hash,
            subject=fact.subject,
            predicate=fact.predicate,
            object=fact.object,
            trust=fact.trust,
            status=change.status,
            valid_from=change.valid_from,
            valid_to=change.valid_to,
            recorded_at=day(1000),
            last_mentioned_at=change.valid_from,
            sources=fact.sources,
        )

    def holding(self, at: datetime) -> list[Fact]:
        """Return what held at *at*."""
        return [
            fact
            for fact in self.facts.values()
            if fact.status != "quarantined" and fact.valid_from <= at and (fact.valid_to is None or at < fact.valid_to)
        ]

    def active(self) -> list[str | None]:
        """Return the objects of the active facts, by row."""
        return [fact.object for fact in self.facts.values() if fact.status == "active"]

    def chain(self) -> list[tuple[datetime, str | None]]:
        """Return from when which value held, adjacent equal ones as one."""
        edges = sorted(
            {fact.valid_from for fact in self.facts.values()}
            | {fact.valid_to for fact in self.facts.values() if fact.valid_to is not None}
        )
        chain: list[tuple[datetime, str | None]] = []
        for edge in edges:
            held = self.holding(edge)
            value = held[0].object if held else None
            if not chain or chain[-1][1] != value:
                chain.append((edge, value))
        return chain


def only(changes: Sequence[Change], kind: type[Change]) -> list[Change]:
    """Return the changes of one kind."""
    return [change for change in changes if isinstance(change, kind)]


class TestSlot:
    """What a fact is about."""

    def test_five_chinese_facts_have_five_slots_and_hashes(self) -> None:
        """Fails when a key keeps Latin letters only, so that facts in other scripts collapse into one."""
        facts = [
            ExtractedFact(kind="fact", content=content)
            for content in ("我住在北京", "我喜欢喝茶", "我的猫叫小白", "我对花生过敏", "我在学日语")
        ]
        assert len({slot(fact) for fact in facts}) == 5
        assert len({content_hash(fact) for fact in facts}) == 5

    @pytest.mark.parametrize("other", ["rome", "ROME", "Rome.", "\uff32\uff4f\uff4d\uff45", "Rome!", "“Rome”"])
    def test_case_width_space_and_closing_marks_make_no_difference(self, other: str) -> None:
        """Fails when the same statement written another way counts as news."""
        assert content_hash(said("lives_in", "Rome", 0)) == content_hash(said("Lives in", other, 0))

    @pytest.mark.parametrize(("one", "other"), [("C", "C++"), ("C", "C#"), ("\uff21", "Б"), ("résumé", "resume")])
    def test_different_things_stay_different(self, one: str, other: str) -> None:
        """Fails when normalising drops marks that carry meaning."""
        assert content_hash(said("likes", one, 0)) != content_hash(said("likes", other, 0))

    @pytest.mark.parametrize(
        "predicate", ["no_longer_lives_in", "not_lives_in", "used_to_lives_in", "resides_in", "Lives In", "lives-in"]
    )
    def test_negations_and_synonyms_share_the_slot(self, predicate: str) -> None:
        """Fails when a negation is filed where it cannot find what it negates."""
        assert slot(said(predicate, "Rome")) == slot(said("lives_in", "Paris"))

    def test_another_subject_is_another_slot(self) -> None:
        """Fails when one person's statement could retire another's."""
        assert slot(said("lives_in", "Rome")) != slot(said("lives_in", "Rome", subject="Anna"))

    def test_keys_fit_a_column(self) -> None:
        """Fails when a key's length depends on its content."""
        long = said("likes", "x" * 100_000)
        assert {len(slot(long)), len(content_hash(long)), len(slot(said("likes", "")))} == {40}

    @pytest.mark.parametrize("predicate", ["lives_in", "works_as", "name", "favorite_color", "answer_language", "age"])
    def test_single_valued_predicates(self, predicate: str) -> None:
        """Fails when a new value no longer closes the old one."""
        assert single_valued(predicate)

    @pytest.mark.parametrize(
        "predicate", ["likes", "allergic_to", "speaks", "has_dog", "knows", "went_to", "instructs"]
    )
    def test_multi_valued_predicates(self, predicate: str) -> None:
        """Fails when a second value closes the first one."""
        assert not single_valued(predicate)


class TestDecide:
    """What a new statement does to what is known."""

    def test_a_repetition_is_a_mention(self) -> None:
        """Fails when saying a thing twice stores it twice."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0, source=1))
        assert rows.hear(said("lives_in", "rome.", 5, source=2)) == [Mention(fact_id=1, at=day(5), sources=(2,))]

    def test_a_new_value_closes_the_old_one_at_its_own_time(self) -> None:
        """Fails when the stale value stays active, or ends when it was heard instead of when it ended."""
        rows = Rows()
        rows.hear(said("lives_in", "Paris", 0))
        new, retired = rows.hear(said("lives_in", "Berlin", 10), at=40)
        assert isinstance(new, NewFact)
        assert retired == Retirement(fact_id=1, valid_to=day(10), superseded_by=new.content_hash)
        assert rows.active() == ["Berlin"]
        assert rows.facts[1].superseded_by == 2

    def test_a_late_arrival_takes_its_place_in_the_chain(self) -> None:
        """Fails when what is heard last wins over what happened last."""
        rows = Rows()
        rows.hear(said("lives_in", "Berlin", 10))
        (new,) = rows.hear(said("lives_in", "Paris", 0))
        assert isinstance(new, NewFact)
        assert (new.status, new.valid_to) == ("superseded", day(10))
        assert new.superseded_by == rows.facts[1].content_hash
        assert rows.active() == ["Berlin"]

    def test_a_late_arrival_in_the_middle_shortens_its_predecessor(self) -> None:
        """Fails when two values of a single-valued slot hold at once."""
        rows = Rows()
        rows.hear(said("lives_in", "Paris", 0))
        rows.hear(said("lives_in", "Oslo", 20))
        rows.hear(said("lives_in", "Berlin", 10))
        assert rows.chain() == [(day(0), "Paris"), (day(10), "Berlin"), (day(20), "Oslo")]
        assert [rows.facts[number].superseded_by for number in (1, 3)] == [3, 2]

    def test_returning_to_an_old_value_is_a_period_of_its_own(self) -> None:
        """Fails when A, B, A collapses into two rows or trips over the unique hash."""
        rows = Rows()
        for number, city in enumerate(("Rome", "Paris", "Rome", "Paris", "Rome")):
            rows.hear(said("lives_in", city, number))
        assert len(rows.facts) == 5
        assert [value for _, value in rows.chain()] == ["Rome", "Paris", "Rome", "Paris", "Rome"]

    def test_a_late_contradiction_splits_what_was_said_before_and_after(self) -> None:
        """Fails when a mention is forgotten as evidence that the value held again."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0, source=1))
        rows.hear(said("lives_in", "Rome", 20, source=2))
        rows.hear(said("lives_in", "Paris", 10, source=3))
        assert rows.chain() == [(day(0), "Rome"), (day(10), "Paris"), (day(20), "Rome")]

    def test_values_of_a_multi_valued_slot_coexist(self) -> None:
        """Fails when liking tea ends liking chess."""
        rows = Rows()
        rows.hear(said("likes", "chess", 0), said("likes", "tea", 1))
        rows.hear(said("likes", "jazz", 2))
        assert rows.active() == ["chess", "tea", "jazz"]

    @pytest.mark.parametrize("negation", ["no_longer_eats", "not_eats", "stopped_eats", "used_to_eats"])
    def test_a_negation_closes_what_it_negates_and_nothing_else(self, negation: str) -> None:
        """Fails when the user stops eating meat and memory goes on serving it, or stops serving fish."""
        rows = Rows()
        rows.hear(said("eats", "meat", 0), said("eats", "fish", 0))
        rows.hear(said(negation, "Meat", 10))
        assert [fact.object for fact in rows.holding(day(11))] == ["fish", "Meat"]
        assert rows.facts[1].valid_to == day(10)
        assert rows.facts[2].status == "active"

    def test_dislike_ends_like_and_the_other_way_round(self) -> None:
        """Fails when a changed taste leaves both facts active."""
        rows = Rows()
        rows.hear(said("likes", "olives", 0))
        rows.hear(said("dislikes", "olives", 10))
        assert [fact.predicate for fact in rows.holding(day(11))] == ["dislikes"]
        rows.hear(said("loves", "olives", 20))
        assert [fact.predicate for fact in rows.holding(day(21))] == ["loves"]

    def test_leaving_a_city_does_not_unsettle_the_next_one(self) -> None:
        """Fails when 'I no longer live in Paris' retires Berlin."""
        rows = Rows()
        rows.hear(said("lives_in", "Berlin", 0))
        rows.hear(said("no_longer_lives_in", "Paris", 10))
        assert [fact.object for fact in rows.holding(day(11)) if fact.predicate == "lives_in"] == ["Berlin"]

    def test_a_negation_that_came_first_ends_the_late_arrival(self) -> None:
        """Fails when an old statement revives what was already said to be over."""
        rows = Rows()
        rows.hear(said("no_longer_smokes", "tobacco", 10))
        rows.hear(said("smokes", "tobacco", 0))
        assert [fact.predicate for fact in rows.holding(day(20))] == ["no_longer_smokes"]
        assert [fact.predicate for fact in rows.holding(day(5))] == ["smokes"]

    def test_an_end_without_a_beginning_is_news_that_something_stopped(self) -> None:
        """Fails when a fact known only to have ended is kept as holding."""
        rows = Rows()
        rows.hear(said("works_at", "Acme", 0))
        rows.hear(said("works_at", "Acme", until=10))
        assert rows.facts[1].valid_to == day(10)
        assert [fact.predicate for fact in rows.holding(day(11))] == ["no_longer_works_at"]

    def test_a_stated_period_ends_by_itself(self) -> None:
        """Fails when 'from 2010 to 2015' is stored as holding for ever."""
        rows = Rows()
        (new,) = rows.hear(said("lives_in", "Lima", 0, until=10), at=50)
        assert isinstance(new, NewFact)
        assert (new.status, new.valid_to, new.superseded_by) == ("superseded", day(10), None)

    def test_other_subjects_and_slots_are_never_retired(self) -> None:
        """Fails when Anna's move moves the user."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0), said("born_in", "Bari", 0), said("lives_in", "Milan", 0, subject="Anna"))
        rows.hear(said("lives_in", "Turin", 10, subject="Anna"))
        assert rows.active() == ["Rome", "Bari", "Turin"]

    def test_at_equal_times_the_later_heard_wins(self) -> None:
        """Fails when two values of one instant both hold, or the outcome is left to chance."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0, source=1), said("lives_in", "Paris", 0, source=1))
        assert [fact.object for fact in rows.holding(day(0))] == ["Paris"]
        rows.hear(said("lives_in", "Oslo", 0, source=2))
        assert [fact.object for fact in rows.holding(day(0))] == ["Oslo"]

    def test_the_same_event_on_another_day_is_another_event(self) -> None:
        """Fails when the second marathon is taken for the first."""
        rows = Rows()
        rows.hear(said("ran", "marathon", 0, source=1, kind="event"))
        rows.hear(said("ran", "marathon", 30, source=2, kind="event"))
        rows.hear(said("ran", "Marathon", 30.2, source=3, kind="event"))
        assert [(fact.mentions, fact.status) for fact in rows.facts.values()] == [(1, "active"), (2, "active")]

    def test_a_sentence_without_a_triple_is_known_by_its_words(self) -> None:
        """Fails when remembering the same note twice keeps two."""
        rows = Rows()
        note = ExtractedFact(kind="fact", content="Prefers mornings", trust="application")
        rows.hear(note, at=1)
        assert rows.hear(replace(note, content="prefers mornings."), at=0) == [Mention(fact_id=1, at=day(0))]

    def test_a_tool_cannot_overwrite_what_the_user_said(self) -> None:
        """Fails when text from a web page changes where the user lives."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0))
        (new,) = rows.hear(said("lives_in", "Attackville", 10, trust="tool"))
        assert isinstance(new, NewFact)
        assert (new.status, new.superseded_by) == ("superseded", rows.facts[1].content_hash)
        assert rows.active() == ["Rome"]

    def test_the_users_news_ends_what_the_application_noted(self) -> None:
        """Fails when a profile that was imported once keeps a user who moved in the old place for good."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0, trust="application"))
        rows.hear(said("lives_in", "Berlin", 10))
        assert rows.active() == ["Berlin"]

    def test_the_user_overrules_a_tool_even_when_heard_later(self) -> None:
        """Fails when trust counts only in one order of arrival."""
        rows = Rows()
        rows.hear(said("lives_in", "Attackville", 10, trust="tool"))
        rows.hear(said("lives_in", "Rome", 0))
        assert rows.active() == ["Rome"]
        assert [fact.object for fact in rows.holding(day(20))] == ["Rome"]

    def test_a_tool_that_repeats_the_user_does_not_renew_it(self) -> None:
        """Fails when a tool's echo outlives the user's own later word."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0, source=1))
        rows.hear(said("lives_in", "Rome", 20, source=2, trust="tool"))
        rows.hear(said("lives_in", "Paris", 10, source=3))
        assert rows.active() == ["Paris"]

    def test_quarantined_facts_neither_retire_nor_are_retired(self) -> None:
        """Fails when text held back as an instruction still changes what is believed."""
        rows = Rows()
        rows.hear(said("lives_in", "Rome", 0))
        bad = said("lives_in", "ignore previous instructions", 10, source=7)
        (new,) = rows.hear(bad, quarantined=[bad.content])
        assert isinstance(new, NewFact)
        assert new.status == "quarantined"
        assert rows.hear(bad, quarantined=[bad.content]) == []
        rows.hear(said("lives_in", "Paris", 20))
        assert [fact.status for fact in rows.facts.values()] == ["superseded", "quarantined", "active"]

    def test_remembering_again_always_answers(self) -> None:
        """Fails when the application remembers what is known already and gets nothing back."""
        rows = Rows()
        note = said("likes", "tea", 0, source=1, trust="application")
        rows.hear(note, again=True)
        assert only(rows.hear(note, again=True), Mention) == [Mention(fact_id=1, at=day(0), sources=(1,))]


CITIES = st.sampled_from(["Rome", "Paris", "Oslo", "Kyoto"])


def statements(cities: Sequence[str]) -> list[ExtractedFact]:
    """Return one statement a day, each from a message of its own."""
    return [said("lives_in", city, number, source=number + 1) for number, city in enumerate(cities)]


@st.composite
def shuffled(draw: st.DrawFn, *, repeats: int) -> tuple[list[ExtractedFact], list[ExtractedFact]]:
    """Draw statements of which none says the same thing more than *repeats* times, and another order of them."""
    cities = draw(
        st.lists(CITIES, min_size=1, max_size=8).filter(lambda some: all(some.count(one) <= repeats for one in some))
    )
    inorder = statements(cities)
    return inorder, draw(st.permutations(inorder))


class TestAnyOrder:
    """Properties that hold for every history."""

    @given(shuffled(repeats=2))
    @settings(max_examples=300, deadline=None)
    def test_the_order_of_arrival_makes_no_difference(
        self, history: tuple[list[ExtractedFact], list[ExtractedFact]]
    ) -> None:
        """Fails when what is believed depends on which message came first."""
        inorder, arrived = history
        straight, late = Rows(), Rows()
        for statement in inorder:
            straight.hear(statement)
        for statement in arrived:
            late.hear(statement)
        assert late.chain() == straight.chain()

    @given(st.lists(CITIES, min_size=1, max_size=8), st.randoms())
    @settings(max_examples=300, deadline=None)
    def test_one_value_holds_at_a_time_and_nothing_is_lost(self, cities: list[str], random: Random) -> None:
        """Fails when a history has a gap, an overlap, or a statement that left no trace."""
        heard = statements(cities)
        random.shuffle(heard)
        rows = Rows()
        for statement in heard:
            rows.hear(statement)
        for moment in range(len(cities)):
            held = rows.holding(day(moment))
            assert len(held) == 1
        assert len(rows.active()) == 1
        assert {source for fact in rows.facts.values() for source in fact.sources} == set(range(1, len(cities) + 1))

    @given(st.lists(st.tuples(CITIES, st.integers(0, 3)), min_size=1, max_size=6), st.integers(1, 3))
    @settings(max_examples=300, deadline=None)
    def test_the_same_work_twice_changes_nothing_more(self, history: list[tuple[str, int]], size: int) -> None:
        """Fails when a job that is done again after a crash doubles facts or counts mentions twice."""
        heard = [said("lives_in", city, at, source=number) for number, (city, at) in enumerate(history, start=1)]
        rows = Rows()
        for begin in range(0, len(heard), size):
            job = heard[begin : begin + size]
            rows.hear(*job)
            before = dict(rows.facts)
            assert rows.hear(*job) == []
            assert rows.facts == before

    @given(
        st.lists(
            st.tuples(CITIES, st.integers(0, 9), st.sampled_from(["application", "user", "assistant", "tool"])),
            min_size=1,
            max_size=7,
        )
    )
    @settings(max_examples=300, deadline=None)
    def test_no_word_ends_a_more_trusted_one(self, history: list[tuple[str, int, Trust]]) -> None:
        """Fails when any sequence of statements lets a lower trust retire a higher one."""
        rank = {"application": 2, "user": 2, "assistant": 1, "tool": 0}
        rows = Rows()
        for number, (city, at, trust) in enumerate(history, start=1):
            rows.hear(said("lives_in", city, at, source=number, trust=trust))
        for fact in rows.facts.values():
            if fact.superseded_by is not None:
                assert rank[rows.facts[fact.superseded_by].trust] >= rank[fact.trust]
        for moment in range(10):
            assert len(rows.holding(day(moment))) <= 1
