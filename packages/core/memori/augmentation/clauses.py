"""A message as the clauses in which its writer speaks for themselves.

Code, quotations, transcripts and pasted text are not the writer's own words and are left out; so are questions, orders
to do a task, and what is only supposed ("if I lived in Rome"). Every step is one pass over the text.
"""

# Word lists are easier to check in long lines; curly quotes, dashes and full-width marks are what people write.
# ruff: noqa: E501, RUF001

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from memori.augmentation.dates import is_time

__all__ = ["SENTENCE_CHARACTERS", "Clause", "clauses", "sentences", "spoken"]

# Longer sentences are pasted or dictated without stops; they also bound what a pattern can cost.
SENTENCE_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Clause:
    """One statement with its subject, contractions spelled out.

    Attributes:
        certainty: In [0, 1]; below 1.0 when it was hedged.
    """

    text: str
    certainty: float = 1.0


_QUOTED = re.compile(
    r'"([^"\n]{0,1000})"|“([^“”\n]{0,1000})”|«([^«»\n]{0,1000})»|„([^„“”\n]{0,1000})[“”]|「([^「」\n]{0,1000})」'
)
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]{1,1000}`(?!`)")
_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
_NOT_PROSE = re.compile(r"\s{0,3}(?:>|<[/!a-zA-Z]|[{\[|]|at \S+\(|Traceback|File \"|From:|To:|Subject:|Date:|Re:)")
_LABEL = re.compile(r"\s{0,3}(?:\*\*)?(?:\[[^\]\n]{1,30}\] ?)?[^\W\d_][\w .'-]{0,30}(?:\*\*)?: ")
_OWN_LABEL = re.compile(
    r"(?i)\s{0,3}(?:note|fun fact|p\.?s\.?|fyi|update|btw|by the way|edit|about me|reminder|info|context|background|correction|also)\s?: "
)
_PASTE = re.compile(
    r"(?i)\b(?:translate|proofread|summari[sz]e|rewrite|rephrase|paraphrase|correct|edit|analy[sz]e|classify|review|improve|"
    r"repeat|say|read|complete|continue|explain|check|fix|polish|shorten|extract|label|write|compose|draft|generate|create|"
    r"imagine|pretend|role-?play|the following|below|here(?:'s| is| are)|this (?:text|sentence|email|message|letter|article|"
    r"paragraph|essay|poem|story|code|prompt|example|phrase|line|passage))\b"
)
_PASTE_LINE = re.compile(
    r"(?i)\s*(?:please |can you |could you |would you )*(?:translate|proofread|summari[sz]e|rewrite|rephrase|paraphrase|"
    r"correct|edit|polish|shorten|improve)\b.{0,60}\b(?:this|following|below|sentences?|text|grammar|into|to)\b"
)
_STOP = re.compile(r"[.!?…]+[\"')\]*]*(?=\s|$)|[。！？।؟]+|\n+")
_ABBREVIATION = re.compile(
    r"(?i)(?:^|[\s(])(?:mr|mrs|ms|dr|st|prof|jr|sr|e\.g|i\.e|vs|approx|no|dept|mt|ft|a\.m|p\.m|u\.s|u\.k|[^\W\d_])$"
)

_CONTRACTIONS = {
    "i'm": "I am", "im": "I am", "i've": "I have", "ive": "I have", "i'll": "I will", "i'd": "I would",
    "we're": "we are", "we've": "we have", "we'll": "we will", "we'd": "we would",
    "don't": "do not", "dont": "do not", "doesn't": "does not", "doesnt": "does not", "didn't": "did not",
    "didnt": "did not", "can't": "cannot", "cant": "cannot", "can not": "cannot", "won't": "will not",
    "isn't": "is not", "aren't": "are not", "wasn't": "was not", "weren't": "were not", "haven't": "have not",
    "hasn't": "has not", "couldn't": "could not", "wouldn't": "would not", "shouldn't": "should not",
    "name's": "name is", "he's": "he is", "she's": "she is", "it's": "it is", "that's": "that is",
    "there's": "there is", "they're": "they are", "you're": "you are", "gonna": "going to", "wanna": "want to",
    "what's": "what is", "who's": "who is", "favourite's": "favourite is", "favorite's": "favorite is",
}  # fmt: skip
_CONTRACTED = re.compile(r"(?i)(?<![\w'])(?:" + "|".join(re.escape(word) for word in _CONTRACTIONS) + r")(?![\w'])")
_I = re.compile(r"(?<![\w'.])i(?![\w'.])")

_OPENING = re.compile(
    r"(?i)(?:(?:hey|hi|hello|hiya|yo|oh|ah|aw+|wow|well|so|and|but|also|plus|yeah|yep|yes|yup|no|nope|ok|okay|sure|right|alright|"
    r"anyway|anyways|actually|honestly|basically|personally|btw|by the way|fyi|for your information|in fact|indeed|"
    r"thanks|thank you|cool|great|nice|awesome|haha|lol|hmm+|um+|uh|luckily|fortunately|unfortunately|sadly|frankly|"
    r"as for me|as i said|as you know|like i said|you know|you see|you should know(?: that)?|turns out|it turns out(?: that)?|guess what|fun fact|note|p\.?s\.?|"
    r"update|correction|context|background|reminder|about me|to be honest|tbh|for the record|just so you know|for context|"
    r"for what it's worth|remember that|please remember(?: that)?|remember,|please note(?: that)?|note that|keep in mind(?: that)?|"
    r"bear in mind(?: that)?|don't forget(?: that)?|i (?:want|would like) you to (?:know|remember)(?: that)?|"
    r"i (?:should|must) (?:mention|say|add|tell you)(?: that)?|i (?:have to|must) (?:admit|confess)(?: that)?|"
    r"let me tell you(?: that)?|the (?:thing|truth|fact) is(?: that)?|since|because|as|although|though|while|now|"
    r"these days|nowadays|currently|at the moment|in general|usually|normally)"
    r"(?:[,:;!.…-]+ *| +))"
)
_VOCATIVE = re.compile(
    r"^(?:[^\W\d_][\w'-]{1,20})(?: [^\W\d_][\w'-]{1,20})?[,!] +(?=(?:I|my|My|we|We|please|Please)\b)"
)
_HEDGE = re.compile(
    r"(?i)(?:i (?:think|guess|believe|suppose|assume|feel like|am pretty sure|am not sure but|reckon)(?: that)?,? +|maybe,? +|perhaps,? +|"
    r"probably,? +|possibly,? +|apparently,? +)(?=(?:i|my|we)\b)"
)
_HEDGED = re.compile(
    r"(?i)^(i|we|my [\w ]{1,40}?) (?:(am|is|are) )?(?:probably|maybe|perhaps|possibly|might be|may be|might|sort of|kind of) "
)
_HEDGED_END = re.compile(
    r"(?i),? (?:i think|i guess|i believe|maybe|probably|or something(?: like that)?|if i remember (?:right|correctly)|not sure)$"
)
HEDGED_CERTAINTY = 0.6

_SUPPOSED = re.compile(
    r"(?i)\b(?:if (?:i|we|my|you|only)\b|wish(?:es|ed)?\b|would (?:be|have|love|like|live|work|move|go|say|do|never|rather|prefer|want)\b"
    r"|imagin(?:e|ing)\b|suppos(?:e|ing)\b|pretend|hypothetically|let's say|let us say|what if|as if|as though|unless|"
    r"in (?:my|this|the|a) (?:\w+ )?(?:dreams?|story|novel|game|book|film|movie|play|fantasy|scenario|song)\b|dreamed|dreamt|"
    r"(?:my|the) (?:\w+ )?(?:character|protagonist|persona|avatar)\b|just kidding|jk\b)"
)
_ASKED = re.compile(
    r"(?i)(?:do|does|did|can|could|would|will|should|shall|may|might|is|are|am|was|were|have|has|had|what|what's|whats|where|when|why|"
    r"who|whom|whose|which|how|how's|any|isn't|aren't|don't|doesn't|won't|can't|wouldn't|guess)\b"
)
_TASK = re.compile(
    r"(?i)(?:(?:please|pls|kindly|now|then|just|ok|okay|hey|can you|could you|would you|will you|i (?:want|need|would like|'d like) you to|"
    r"help me(?: to)?|let's|let us),? +)*(?:write|translate|summari[sz]e|tell|give|make|create|generate|compose|draft|explain|describe|"
    r"list|find|help|show|fix|act|imagine|pretend|say|repeat|rewrite|rephrase|paraphrase|proofread|correct|compare|convert|calculate|"
    r"compute|recommend|suggest|search|look|send|open|play|set|schedule|book|order|add|update|delete|remove|save|read|review|analy[sz]e|"
    r"classify|extract|complete|continue|design|build|implement|code|debug|plan|provide|return|print|sing|invent|think|consider|"
    r"roleplay|role-play|assume|suppose|remind)\b"
)
_CLAUSE = re.compile(
    r"(?i)(?:[;:]| ?[—–]| -{1,2}(?= )|,? (?:and|but|so|because|since|though|although|while|plus|yet)|,)(?: (?:also|then|now|plus|that|and|but|so|yes|yeah|well))*"
    r" +(?=(?:i|we|my|our|he|she|it|they|you|there|this|that|what|where|how|who|which|when|do|does|can|could|would|will|should|is|are|"
    r"please|any|his|her|their|your)\b(?!'s))"
)
# "I live in Rome and work as a nurse": the second verb has the first one's subject.
_SHARED = re.compile(
    r"(?i),? (?:and|but)(?: also| now| currently| then)? +(?=(?:live|lives|work|works|love|loves|like|likes|enjoy|enjoys|hate|hates|"
    r"dislike|dislikes|speak|speaks|prefer|prefers|study|studies|teach|teaches|own|owns|drive|drives|play|plays|collect|collects|"
    r"eat|eats|drink|drinks|moved|used to|have (?:a|an|two|three|four)|has (?:a|an|two|three|four)|am (?:a|an|allergic|married|learning|"
    r"vegan|vegetarian|from|into|fluent)|is (?:a|an|allergic|called|named)|do not|does not|cannot|cannot stand|volunteer|run|was born|grew up)\b)"
)
# With any of these before it, the second verb may have another subject, or hang on the first.
_NOT_SHARED = re.compile(r"(?i)\b(?:you|he|she|they|who|which|that|how|what|to|can|could|will|would|people|everyone)\b")
_SUBJECT = re.compile(r"(?i)(?:i|we|my [\w'-]+(?: [A-Z][\w'-]+)?)(?= )")


def spoken(text: str) -> str:
    """Return *text* without what is not the writer's own: code, quotations, transcripts, markup, pasted text."""
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").replace("\u2018", "'").replace("\u02bc", "'")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    text = _QUOTED.sub(_short_title, _INLINE_CODE.sub(" ", text))
    kept: list[str] = []
    fenced = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        elif fenced or _NOT_PROSE.match(line):
            continue
        elif (label := _LABEL.match(line)) and not _OWN_LABEL.match(line):
            # Either a transcript ("Ann: …") or an order with its material ("Translate: …").
            if _PASTE.search(line[: label.end()]):
                break
        elif (":" in line and _PASTE.search(line[: line.index(":")])) or _PASTE_LINE.match(line):
            break
        else:
            kept.append(line)
    return "\n".join(kept)


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """Return each sentence of *text* with the mark that ends it; a line break ends one as well."""
    begin = 0
    for stop in _STOP.finditer(text):
        mark = stop.group()
        if mark == "." and _ABBREVIATION.search(text[max(begin, stop.start() - 12) : stop.start()]):
            continue
        yield text[begin : stop.start()].strip(), mark
        begin = stop.end()
    yield text[begin:].strip(), ""


def clauses(sentence: str, mark: str = ".") -> list[Clause]:
    """Return what *sentence*, which ended in *mark*, states in the first person; of a question, what was said first."""
    if not sentence or len(sentence) > SENTENCE_CHARACTERS:
        return []
    plain = _I.sub(
        "I", _CONTRACTED.sub(lambda found: _CONTRACTIONS[found.group().casefold()], " ".join(sentence.split()))
    )
    plain = _opened(plain)
    if _TASK.match(plain):
        return []
    certainty = 1.0
    parts = _CLAUSE.split(plain)
    if "?" in mark or "？" in mark or "؟" in mark:
        if len(parts) == 1 or _ASKED.match(plain):
            return []
        parts = parts[:-1]
    found: list[Clause] = []
    time = ""
    for part in parts:
        clause = _opened(part.strip(" .,;:-—–"))
        if is_time(clause):
            # "Last Saturday, I ran": the time belongs to what follows.
            time = clause
            continue
        clause, time = f"{clause} {time}".rstrip(), ""
        if _SUPPOSED.search(clause):
            if re.match(r"(?i)(?:if|imagine|suppose|pretend|let's say|in )", clause):
                break
            continue
        if hedge := _HEDGE.match(clause):
            certainty, clause = HEDGED_CERTAINTY, clause[hedge.end() :]
        if hedge := _HEDGED.match(clause):
            certainty, clause = HEDGED_CERTAINTY, " ".join(filter(None, (hedge[1], hedge[2], clause[hedge.end() :])))
        if hedge := _HEDGED_END.search(clause):
            certainty, clause = HEDGED_CERTAINTY, clause[: hedge.start()]
        subject = _SUBJECT.match(clause)
        if subject is None:
            found.append(Clause(clause, certainty))
            continue
        second = _SHARED.search(clause)
        if second is not None and _NOT_SHARED.search(clause[: second.start()]):
            second = None
        pieces = [clause] if second is None else _SHARED.split(clause)
        found.append(Clause(pieces[0], certainty))
        found.extend(Clause(f"{subject.group()} {piece}", certainty) for piece in pieces[1:])
        certainty = 1.0
    return found


def _opened(text: str) -> str:
    for _ in range(6):
        opening = _OPENING.match(text) or _VOCATIVE.match(text)
        if opening is None or opening.end() >= len(text):
            break
        text = text[opening.end() :]
    return text


def _short_title(found: re.Match[str]) -> str:
    inside = next(group for group in found.groups() if group is not None)
    # A title ("Dune") is part of what is said; speech is someone's, and nobody knows whose.
    if len(inside.split()) > 6 or re.search(r"(?i)\b(?:i|i'm|i've|my|me|we|you)\b", inside) or len(inside) > 60:
        return " … "
    return inside.strip(" .,!?")
