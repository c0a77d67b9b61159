"""The offline extractor: what people say of themselves in plain sentences, read by a table of rules.

No model, no key, no network. A sentence is cut into clauses with one subject each (`memori.augmentation.clauses`), and
each clause is held against the tables of `memori.augmentation.grammar`. The rules are anchored at the clause's
beginning and read a subject, so what is said about others never becomes the user's. They would rather miss something than
invent it: the messages themselves are recalled as well.
"""

# Word lists are easier to check in long lines; curly quotes, dashes and full-width marks are what people write.
# ruff: noqa: E501, RUF001

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from memori.augmentation.clauses import SENTENCE_CHARACTERS, Clause, clauses, sentences, spoken
from memori.augmentation.dates import When, when
from memori.augmentation.grammar import PAST, PET, RELATION, RULES, SINGULAR, VERBS, WEIGHTY, WORD, Rule, Take
from memori.augmentation.languages import CONNECTIVES, EMPTY, PHRASES
from memori.augmentation.slots import single_valued
from memori.types import ExtractedFact, Extraction, FactKind, StoredMessage

__all__ = ["RuleExtractor"]


class RuleExtractor:
    """Reads facts out of what users say, by rules: deterministic, and linear in the length of the text.

    Only text messages of the user's role are evidence. Facts are about ``user``, or about the message's author where
    it has one.
    """

    def extract(self, messages: Sequence[StoredMessage]) -> Extraction:
        """Return the facts in *messages*, in the order in which they were said, each with the message it is from."""
        found: dict[tuple[str | None, ...], ExtractedFact] = {}
        for message in messages:
            if message.role == "user" and message.kind == "text":
                for fact in _facts(message):
                    found.setdefault((fact.subject, fact.predicate, fact.object, str(fact.valid_from)), fact)
        return Extraction(facts=tuple(found.values()))


@dataclass(frozen=True, slots=True)
class _Speaker:
    """Who speaks: as the subject of a triple, of a sentence, and as a possessive within one."""

    name: str
    subject: str
    possessive: str


_COMPILED = tuple((re.compile(rule.pattern, re.IGNORECASE), rule) for rule in RULES)


def _beginning_with(*beginnings: str) -> tuple[tuple[re.Pattern[str], Rule], ...]:
    anything = ("I ", "my ", "(?:I|we) ", "(?:I am|we are) ")
    return tuple(
        (pattern, rule)
        for pattern, rule in _COMPILED
        if rule.pattern.startswith(beginnings) or not rule.pattern.startswith(anything)
    )


# A clause is told by its first word, so most rules need not be tried.
_BY_FIRST_WORD = {
    "i": _beginning_with("I ", "(?:I|we) ", "(?:I am|we are) "),
    "we": _beginning_with("(?:I|we) ", "(?:I am|we are) "),
    "my": _beginning_with("my "),
}
_OTHERS = _beginning_with()

_BASES = {verb.base: verb for verb in VERBS}
_THIRDS = {verb.third: verb for verb in VERBS}
_GERUNDS = {verb.gerund: verb for verb in VERBS}


def _any_of(words: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_ABOUT = rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)?"
# The forms in which a verb of the table may stand: what it is looked up by, and the words that negate it.
_FORMS = (
    (_BASES, re.compile(rf"(?:I|we) (?P<v>{_any_of(list(_BASES))}) (?P<o>.+)", re.IGNORECASE)),
    (
        _BASES,
        re.compile(
            rf"(?:I|we) (?P<how>do not|no longer|never|used to|would never)(?: really| even| actually| usually)? "
            rf"(?P<v>{_any_of(list(_BASES))}) (?P<o>.+)",
            re.IGNORECASE,
        ),
    ),
    (
        _GERUNDS,
        re.compile(
            rf"(?:I|we) (?:have )?(?:just |recently )?(?P<how>stopped|quit|gave up|given up) "
            rf"(?P<v>{_any_of(list(_GERUNDS))}) (?P<o>.+)",
            re.IGNORECASE,
        ),
    ),
    (_THIRDS, re.compile(rf"{_ABOUT} (?P<v>{_any_of(list(_THIRDS))}) (?P<o>.+)", re.IGNORECASE)),
    (_THIRDS, re.compile(rf"{_ABOUT} (?P<how>no longer) (?P<v>{_any_of(list(_THIRDS))}) (?P<o>.+)", re.IGNORECASE)),
    (_BASES, re.compile(rf"{_ABOUT} (?P<how>does not) (?P<v>{_any_of(list(_BASES))}) (?P<o>.+)", re.IGNORECASE)),
)
_EVENT = re.compile(
    rf"(?:I|we) (?:have )?(?P<just>(?:(?:just|recently|finally|already|even) )*)(?P<verb>{PAST})\b(?P<o>(?: .+)?)",
    re.IGNORECASE,
)
_WEIGHTY_EVENT = re.compile(rf"(?:I|we) (?:have )?(?:(?:just|recently|finally|already) )*{WEIGHTY}\b", re.IGNORECASE)
_PREPOSITION = re.compile(r"(?:to|on|for|in|at|with|up|back|from|into|off|out|through|over|by)\b", re.IGNORECASE)

# Among several people an order may be meant for any of them.
_ASKED_OF_US = re.compile(r"(?:please|from now on|in (?:the )?future|going forward)\b", re.IGNORECASE)

_PHRASES = tuple((re.compile(phrase.pattern, re.IGNORECASE), phrase) for phrase in PHRASES)
_CONNECTED = re.compile(CONNECTIVES)
_NO_OBJECT = re.compile(EMPTY, re.IGNORECASE)
_NOT_QUESTIONED = re.compile(r"[^?？؟]*")

# What says nothing of its own between the subject and its verb, and other words for the same.
_REWRITES = (
    (re.compile(r"^our\b", re.IGNORECASE), "my"),
    (
        re.compile(
            r"^(I|we)(?: am| are)? (?:(?:really|truly|still|also|absolutely|totally|definitely|actually|currently|now|usually|mostly|"
            r"mainly|normally|generally|often|simply|do|particularly|especially|honestly|always|just(?= (?:love|like|adore|hate|enjoy)))"
            r"(?: (?!not\b)|$))+",
            re.IGNORECASE,
        ),
        None,
    ),
    (re.compile(r"^(I|we) (?:am|are) (?:based|residing|located|living) in\b", re.IGNORECASE), r"\1 live in"),
    (re.compile(r"^(I|we) (?:have|had) (?:been living|lived) (in|near|with|at)\b", re.IGNORECASE), r"\1 live \2"),
    (
        re.compile(
            r"^(I|we) (?:have been|am|are) (working (?:as|at|for|in)|studying|teaching|volunteering at)\b",
            re.IGNORECASE,
        ),
        "",
    ),
    (re.compile(r"^(I|we) have (worked (?:as|at|for|in)|taught|studied|played)\b", re.IGNORECASE), ""),
    (re.compile(r"^(I|we) reside in\b", re.IGNORECASE), r"\1 live in"),
    (re.compile(r"^I (?:am employed by|have a job at|got a job at)\b", re.IGNORECASE), "I work at"),
)
_WORKING = {
    "working": "work", "worked": "work", "studying": "study", "studied": "study", "teaching": "teach", "taught": "teach",
    "volunteering": "volunteer", "played": "play",
}  # fmt: skip

_TAIL = re.compile(
    r"[;:()\[\]{}]|,(?= |$)|\s[-–—]+\s|…| (?:because|since|so|but|although|though|while|when|whenever|where|which|that|who|whose|whom|if|"
    r"unless|until|till|thanks to|due to|even|as well|too|anymore|any more|any longer|these days|nowadays|now|currently|at the moment|"
    r"right now|instead|again|lately|anyway|as|than|after|before|ever since|and (?:I|we|my|it|he|she|they|you|that|this|there|so|then|"
    r"have|had|was|were|am|is|are)|so much|a lot|very much|for sure|of course|to be honest|by the way|btw|lol|haha|please)(?![\w'-])",
    re.IGNORECASE,
)
_PHRASE_TAIL = re.compile(
    r"[;:\[\]{}]| [-–—]+ |,? (?:because|but|although|though|whenever|which|if|unless|thanks to|lol|haha|btw|by the way|so (?:I|it|we|that|now|my)|"
    r"and (?:I|we|my|it|he|she|they|you|that|this|there|so|then|am|is|are|was|were|had|something|everything|everyone|the \w+ (?:is|are|was|were))\b|as well|too|again|of course)(?![\w'-])|…",
    re.IGNORECASE,
)
_EMPTY = re.compile(
    r"(?:it|that|this|these|those|you|your|yours|him|them|they|us|how|what|whatever|when|where|why|who|one|ones|something|anything|everything|"
    r"nothing|someone|anyone|everyone|me|us|here|there|more|most|much|such|so|too|not|no|none|both|all of|every (?:bit|minute|second|moment)|"
    r"to (?:hear|see|know|say|tell|chat|talk|ask|be able|think)|hearing|seeing (?:you|your|how|that|it)|the (?:way|idea|fact|thought|look|"
    r"sound|vibe|vibes|colou?rs?|photo|picture|pic|design|detail|details|energy|concept|feeling|same|one|ones)|a lot|lots?|his|her|their|if|"
    r"being able|its?|to$|like|please|then|now|about|just|myself|mine|of|and|or|but|to you)(?![\w-])",
    re.IGNORECASE,
)
_OTHER_PERSON = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
# Points at something that was said elsewhere.
_POINTING = re.compile(r"\b(?:you|your|yours|yourself|it|him|them|this|these|those|itself)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:an?|the|some|any|my|our|their|both)\s+(?=\S)", re.IGNORECASE)
_LIST = re.compile(r",? (?:and|or|&) |, | as well as ", re.IGNORECASE)
# "Mac and cheese" is one thing.
_ONE_THING = re.compile(
    r"\b(?:mac|rock|salt|bread|bed|fish|drum|r|gin|peanut butter|arts|trial|black|research|cookies|ham|track|bacon) (?:and|&|n) \w+",
    re.IGNORECASE,
)
_FIRST_PERSON = {
    "my": "their", "our": "their", "me": "them", "us": "them", "myself": "themselves", "ourselves": "themselves", "mine": "theirs",
    "ours": "theirs",
}  # fmt: skip
_PRONOUN = re.compile(r"(?<![\w'-])(?:" + "|".join(_FIRST_PERSON) + r")(?![\w'-])", re.IGNORECASE)
_I = re.compile(r"(?<![\w'])(?:I|we)(?: (am|was))?(?![\w'])")
_PARTICLES = frozenset(
    {"de", "del", "della", "der", "den", "di", "da", "van", "von", "la", "le", "el", "al", "bin", "ibn", "dos", "du"}
)
_NO_NAME = frozenset(
    [
        "a",
        "an",
        "the",
        "not",
        "so",
        "very",
        "too",
        "really",
        "back",
        "later",
        "tomorrow",
        "today",
        "now",
        "when",
        "if",
        "at",
        "on",
        "in",
        "crazy",
        "old",
        "whatever",
        "anything",
        "names",
        "out",
        "up",
        "over",
        "again",
        "maybe",
        "mad",
        "stupid",
        "lazy",
        "weird",
        "sir",
        "and",
        "but",
        "or",
        "that",
        "this",
        "what",
        "because",
        "just",
        "important",
        "none",
        "unknown",
        "secret",
    ]
)
_PREDICATES = {
    "e_mail": "email", "e_mail_address": "email", "email_address": "email", "phone_number": "phone", "mobile": "phone", "cell": "phone",
    "mobile_number": "phone", "cell_number": "phone", "telephone": "phone", "telephone_number": "phone", "time_zone": "timezone",
    "zip_code": "postcode", "post_code": "postcode", "home_address": "address", "postal_address": "address", "street_address": "address",
    "mother_tongue": "native_language", "first_language": "native_language", "job": "works_as", "profession": "works_as",
    "occupation": "works_as", "job_title": "works_as", "employer": "works_at", "company": "works_at", "last_name": "surname",
    "home_town": "hometown", "works_for": "works_at", "number_of_kids": "number_of_children", "has_fiancee": "has_fiance",
    "has_fiancé": "has_fiance", "has_fiancée": "has_fiance", "has_mom": "has_mother", "has_mum": "has_mother", "has_dad": "has_father",
    "has_neighbour": "has_neighbor", "hobbies": "hobby",
}  # fmt: skip
_OBJECT_TYPES = {
    "lives_in": "place", "from": "place", "born_in": "place", "grew_up_in": "place", "works_at": "organization", "speaks": "language",
    "answer_language": "language", "married_to": "person", "dates": "person", "allergic_to": "substance",
}  # fmt: skip
_STOPPED_SMOKING = {
    "do not": "does not smoke",
    "no longer": "no longer smokes",
    "never": "never smokes",
} | dict.fromkeys(("have stopped", "stopped", "quit", "gave up"), "stopped smoking")
_RECENT = timedelta(days=366)
_PHRASE_WORDS = 30
_NOUN_WORDS = 9


def _facts(message: StoredMessage) -> Iterator[ExtractedFact]:
    author = unicodedata.normalize("NFC", " ".join((message.author or "").split()))
    speaker = _Speaker(author, author, f"{author}'s") if author else _Speaker("user", "The user", "the user's")
    at = message.at or datetime.now(UTC)
    for sentence, mark in sentences(spoken(message.content)):
        for fact in _foreign(sentence, mark, speaker):
            yield replace(fact, sources=(message.id,))
        for clause in clauses(sentence, mark):
            for fact in _read(clause, speaker, at):
                found = replace(fact, confidence=round(fact.confidence * clause.certainty, 2), sources=(message.id,))
                yield found
                if _still_holds(found, clause.text, at):
                    yield replace(found, valid_from=None)


def _still_holds(fact: ExtractedFact, text: str, at: datetime) -> bool:
    """Return whether *fact*, which began in the past, also says how things are now.

    "I moved to Berlin last month" does: without that, "I live in Rome", said in the middle of that month, would come
    after it and win. "I moved to Berlin in 2010" tells the past, and Berlin may be long over; "since 2010" does not.
    """
    if fact.valid_from is None or not fact.predicate or fact.predicate.startswith("no_longer_"):
        return False
    if fact.kind == "event" or not single_valued(fact.predicate):
        return False
    time = when(text, at)
    return at - fact.valid_from <= _RECENT or (time is not None and time.since)


def _read(clause: Clause, speaker: _Speaker, at: datetime) -> Iterator[ExtractedFact]:
    text = _rewritten(clause.text)
    timed = _Timed.of(text, at)
    first = text.partition(" ")[0].casefold()
    # "Last Saturday I ran": the subject comes after the time.
    rules = _BY_FIRST_WORD.get(
        first if first in _BY_FIRST_WORD else timed.without.partition(" ")[0].casefold(), _OTHERS
    )
    done = False
    for pattern, rule in rules:
        words = timed.without if rule.dated or timed.since else text
        found = pattern.match(words)
        if found is None:
            continue
        if rule.timed and timed.time is None:
            continue
        if rule.kind == "rule" and speaker.name != "user" and not _ASKED_OF_US.match(clause.text):
            continue
        time = (_Timed.of(text, at, ahead=True) if rule.ahead else timed) if rule.dated or timed.since else None
        facts = list(_of_rule(rule, found, speaker, time))
        yield from facts
        if facts and not rule.further:
            done = True
            break
    if not done:
        yield from _of_verb(
            timed.without if timed.since else text, speaker, timed if timed.since else None
        ) or _of_event(timed, speaker)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A clause and the time in it."""

    text: str
    without: str
    time: When | None

    @classmethod
    def of(cls, text: str, at: datetime, *, ahead: bool = False) -> _Timed:
        time = when(text, at, ahead=ahead)
        if time is None:
            return cls(text, text, None)
        begin, end = time.span
        return cls(text, " ".join(f"{text[:begin]} {text[end:]}".replace(" ,", ",").split()).strip(" ,;:-–—"), time)

    @property
    def since(self) -> bool:
        """Whether the time is that from which something has held."""
        return self.time is not None and self.time.since


def _rewritten(text: str) -> str:
    for pattern, words in _REWRITES:
        found = pattern.match(text)
        if found is None:
            continue
        if words is None:
            be = re.match(r"(?:I|we) (?:am|are)\b", found.group(), re.IGNORECASE)
            text = f"{be.group() if be else found.group(1)} {text[found.end() :]}"
        elif words:
            text = found.expand(words) + text[found.end() :]
        else:
            verb, _, rest = found.group(2).partition(" ")
            text = " ".join(filter(None, (found.group(1), _WORKING[verb.casefold()], rest))) + text[found.end() :]
    return text


def _of_rule(rule: Rule, found: re.Match[str], speaker: _Speaker, time: _Timed | None) -> Iterator[ExtractedFact]:
    groups = {name: value for name, value in found.groupdict().items() if value is not None}
    if (who := _subject(groups, speaker)) is None:
        return
    whole = found.string
    for words in _taken(groups.get("o", ""), rule.take, whole, given="o" in groups):
        if (
            rule.take == "name"
            and (rule.predicate not in ("name", "nickname") or rule.pattern.startswith("I am"))
            and not _capital(words)
        ):
            return
        said = {name: _third(value) if name == "verb" else value for name, value in groups.items()}
        if "kin" in said:
            said["kin"] = SINGULAR.get(said["kin"].casefold(), said["kin"])
        if "how" in said:
            said["how"] = _STOPPED_SMOKING.get(said["how"].casefold(), said["how"])
        said |= {"o": words if rule.kind == "rule" else _in_third_person(words)}
        predicate = _slug(rule.predicate.format_map(said))
        thing = _bare(rule.object.format_map(said), rule.take)
        content = rule.content.format_map(said | {"S": who.subject, "P": who.possessive})
        yield _fact(rule.kind, predicate, thing, content, rule.importance, who, time, ahead=rule.ahead)


def _of_verb(text: str, speaker: _Speaker, time: _Timed | None) -> list[ExtractedFact]:
    for table, pattern in _FORMS:
        found = pattern.match(text)
        if found is None:
            continue
        groups = {name: value for name, value in found.groupdict().items() if value is not None}
        verb = table[groups["v"].casefold()]
        if (who := _subject(groups, speaker)) is None:
            return []
        how = groups.get("how", "").casefold()
        stopped = how in ("no longer", "used to", "stopped", "quit", "gave up", "given up") or re.search(
            r"\b(?:any ?more|any longer)$", text, re.IGNORECASE
        )
        facts = []
        for words in _taken(groups["o"], verb.take, text):
            said = _in_third_person(words)
            predicate = _slug(verb.predicate)
            if how:
                predicate = f"no_longer_{predicate}" if stopped else f"not_{predicate}"
                middle = {"no longer": f"no longer {verb.third}", "never": f"never {verb.third}", "would never": f"would never {verb.base}",
                          "used to": f"used to {verb.base}", "do not": f"does not {verb.base}", "does not": f"does not {verb.base}"}.get(
                    how, f"stopped {verb.gerund}"
                )  # fmt: skip
                if how in ("do not", "does not") and stopped:
                    middle = f"no longer {verb.third}"
            else:
                middle = verb.third
            content = f"{who.subject} {middle} {said}"
            facts.append(_fact(verb.kind, predicate, _bare(said, verb.take), content + ".", verb.importance, who, time))
        return facts
    return []


def _of_event(timed: _Timed, speaker: _Speaker) -> list[ExtractedFact]:
    found = _EVENT.match(timed.without)
    if found is None:
        return []
    dated = timed.time is not None and not timed.time.since
    weighty = _WEIGHTY_EVENT.match(timed.without) is not None
    if not dated and not weighty and not found["just"]:
        return []
    words = next(iter(_taken(found["o"].strip(), "phrase", timed.without, given=bool(found["o"].strip()))), None)
    if words is None or _OTHER_PERSON.search(words):
        return []
    verb = re.sub(r"(?i)^were\b", "was", found["verb"].casefold())
    said = _in_third_person(words)
    predicate, thing = verb, said
    if preposition := _PREPOSITION.match(said):
        predicate, thing = f"{verb} {preposition.group()}", said[preposition.end() :].strip() or said
    content = " ".join(filter(None, (speaker.subject, verb, said))) + "."
    importance = 0.6 if weighty else 0.4 if dated else 0.35
    return [
        _fact(
            "event",
            _slug(predicate),
            _bare(thing, "phrase") or verb,
            content,
            importance,
            speaker,
            timed if dated else None,
        )
    ]


def _foreign(sentence: str, mark: str, speaker: _Speaker) -> Iterator[ExtractedFact]:
    """Yield what a sentence of another language states; each of its parts is tried, without what introduces it."""
    if len(sentence) > SENTENCE_CHARACTERS or not _NOT_QUESTIONED.fullmatch(mark) or sentence.startswith("¿"):
        return
    for part in _CONNECTED.split(sentence):
        statement = part.strip(" \t¡!.…")
        for pattern, phrase in _PHRASES:
            found = pattern.match(statement)
            if found is None:
                continue
            words = found["o"].strip()
            few = 3 if phrase.predicate == "name" else 6
            if words and len(words.split()) <= few and len(words) <= 60 and not _NO_OBJECT.match(words):
                yield ExtractedFact(
                    kind=phrase.kind,
                    content=statement if speaker.name == "user" else f"{speaker.name}: {statement}",
                    subject=speaker.name,
                    predicate=_slug(phrase.predicate.format_map(found.groupdict())),
                    object=words,
                    subject_type="person",
                    object_type=_OBJECT_TYPES.get(phrase.predicate),
                    importance=phrase.importance,
                    confidence=0.85,
                )
            break


def _fact(
    kind: FactKind,
    predicate: str,
    thing: str,
    content: str,
    importance: float,
    who: _Speaker,
    time: _Timed | None,
    *,
    ahead: bool = False,
) -> ExtractedFact:
    moment = time.time if time is not None else None
    base = predicate.removeprefix("no_longer_").removeprefix("not_")
    if moment is not None:
        phrase = moment.since_phrase if base == "lives_in" else moment.phrase
        content = f"{content.removesuffix('.')} {phrase}."
    return ExtractedFact(
        kind=kind,
        content=content[:1].upper() + content[1:] if content.startswith("the user") else content,
        subject=who.name,
        predicate=predicate,
        object=thing,
        subject_type="person",
        object_type=_OBJECT_TYPES.get(base),
        importance=importance,
        confidence=0.9,
        valid_from=None if moment is None or ahead else moment.start,
    )


def _subject(groups: dict[str, str], speaker: _Speaker) -> _Speaker | None:
    if "r" not in groups:
        return speaker
    relation = groups["r"].casefold()
    name = groups.get("s")
    if name is None:
        who = f"{speaker.possessive} {relation}"
        return _Speaker(f"{speaker.name}'s {relation}", who, f"{who}'s")
    if not _capital(name):
        return None
    return _Speaker(name, f"{name}, {speaker.possessive} {relation},", f"{name}'s")


def _taken(words: str, take: Take, whole: str, *, given: bool = True) -> list[str]:
    """Return what of *words* is the object, or the objects; empty when it is none that says anything."""
    if not given:
        return [""]
    words = words.strip(" .,;:!?-–—")
    if not words or _EMPTY.match(words):
        return []
    if take == "phrase":
        cut = _PHRASE_TAIL.search(words)
        words = words[: cut.start()] if cut else words
        return [words.strip(" .,;:!?-–—")] if words.strip() and len(words.split()) <= _PHRASE_WORDS else []
    if take == "name":
        return _names(words, whole)
    if take == "list":
        return _listed(words)
    country = re.match(
        r"([^,]{1,40}), ((?-i:[^\W\d_a-z])\w+(?: (?-i:[^\W\d_a-z])\w+)?)(?=$|[,.;]| (?:and|but|now|with|since|for)\b)",
        words,
    )
    if take in ("place", "value") and country and not re.search(r" (?:and|with|but|now) ", country[1]):
        words = country.group()
    else:
        cut = _TAIL.search(words)
        words = words[: cut.start()] if cut else words
    words = re.sub(r" (?:for|with|together with|near|close to|right|just|still|of)$", "", words.strip(" .,;:!?-–—"))
    if not words or len(words.split()) > _NOUN_WORDS or _EMPTY.match(words) or _POINTING.search(words):
        return []
    if take == "place":
        words = re.sub(r"(?i) (?:with|together with|alone|by myself|full[- ]time|for) ?.*$", "", words)
        if not _capital(words) and not _ARTICLE.match(words) and (_has_capitals(whole) or len(words.split()) > 3):
            return []
    return [words]


def _names(words: str, whole: str) -> list[str]:
    names = []
    for part in _LIST.split(words)[:8]:
        name: list[str] = []
        for word in part.split()[:4]:
            bare = word.strip(".,;:!?\"'()…")
            if not bare or not bare[0].isalpha():
                break
            if not _capital(bare) and not (name and bare in _PARTICLES):
                break
            name.append(bare)
            if bare != word:
                break
        while name and name[-1] in _PARTICLES:
            name.pop()
        if not name:
            break
        names.append(" ".join(name))
    if names or _has_capitals(whole):
        return names
    cut = _TAIL.search(words)
    plain = (words[: cut.start()] if cut else words).strip()
    short = len(plain.split()) <= 2 and not _NO_NAME & set(plain.casefold().split())
    return [plain] if plain and short and plain[0].isalpha() else []


def _listed(words: str) -> list[str]:
    if _ONE_THING.match(words):
        cut = _TAIL.search(words)
        return [(words[: cut.start()] if cut else words).strip(" .,;:!?-–—")]
    items: list[str] = []
    begin = 0
    for separator in [*_LIST.finditer(words), None]:
        item = words[begin : separator.start() if separator else len(words)].strip(" .,;:!?-–—")
        item = re.sub(r"(?i)^(?:and|or|&|also|especially|particularly) ", "", item)
        cut = _TAIL.search(item)
        last = cut is not None
        item = (item[: cut.start()] if cut else item).strip(" .,;:!?-–—")
        if not item or len(item.split()) > _NOUN_WORDS or _EMPTY.match(item) or _POINTING.search(item):
            break
        # After "and" there may come a verb with its own object instead of another item.
        if items and len(item.split()) > 4:
            break
        items.append(item)
        if last or separator is None:
            break
        begin = separator.end()
    return items


def _capital(word: str) -> bool:
    """Return whether *word* may begin a name: not a small letter, of a script that has them."""
    return bool(word) and not word[0].islower()


def _has_capitals(text: str) -> bool:
    return any(character.isupper() for character in text.replace("I ", "").removeprefix("My "))


def _bare(words: str, take: Take) -> str:
    if take in ("name", "value", "place"):
        return words
    found = _ARTICLE.match(words)
    return words[found.end() :] if found else words


def _in_third_person(words: str) -> str:
    be = {"am": "are", "was": "were"}
    words = _I.sub(lambda found: f"they {be[found[1]]}" if found[1] else "they", words)
    return _PRONOUN.sub(lambda found: _FIRST_PERSON[found.group().casefold()], words)


def _third(verb: str) -> str:
    first, _, rest = verb.casefold().partition(" ")
    changed = {"am": "is", "have": "has"}.get(first, f"{first}s")
    return f"{changed} {rest}".rstrip()


def _slug(words: str) -> str:
    name = (
        re.sub(r"[^\w]+", "_", words.casefold()).strip("_").replace("favourite", "favorite").replace("colour", "color")
    )
    return _PREDICATES.get(name, name)
