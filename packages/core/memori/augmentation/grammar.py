"""The table the offline extractor reads by: which clause gives which fact. Data, with an example in each row.

Contractions are spelled out and opening words taken off before a clause gets here, so a pattern begins with its subject.
"""

# A row is easier to check when it stands on few lines; curly quotes and dashes are what people write.
# ruff: noqa: E501, RUF001

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from memori.types import FactKind

__all__ = ["PAST", "PET", "RELATION", "RULES", "SINGULAR", "VERBS", "WEIGHTY", "WORD", "Rule", "Take", "Verb"]

# How much of the rest of a clause is the object: a *noun* ends at the first comma or conjunction, a *list* is taken
# apart, a *place* keeps its country, a *name* is one to three capitalised words, a *value* may be anything up to a comma,
# a *phrase* goes on.
Take: TypeAlias = Literal["noun", "list", "place", "name", "value", "phrase"]


class Rule(NamedTuple):
    """One row: a clause that begins with *pattern* gives a fact.

    The pattern's groups are ``o`` (the object), ``s`` (the name of whom it is about, instead of the speaker), ``r`` (their
    relation to the speaker), and any that *predicate* and *content* name. ``{S}`` is the subject, ``{P}`` its possessive.

    Attributes:
        object: What the triple's object is made of.
        dated: Whether a time in the clause is the fact's time; it is then taken out of the object.
        ahead: Whether that time is to come, so that it is named but nothing begins to hold with it.
        timed: Whether it says nothing worth keeping without a time.
        further: Whether the rows below may find something in the same clause too.
        example: A sentence, which a test holds against *gives*, the content that must come of it.
    """

    pattern: str
    kind: FactKind
    predicate: str
    content: str
    importance: float
    take: Take
    example: str
    gives: str
    object: str = "{o}"
    dated: bool = False
    ahead: bool = False
    timed: bool = False
    further: bool = False


class Verb(NamedTuple):
    """A verb of state: "I live in", "she lives in", "I no longer live in", "I stopped living in", "I used to live in"."""

    base: str
    third: str
    gerund: str
    predicate: str
    kind: FactKind
    importance: float
    take: Take
    example: str
    gives: str


VERBS: tuple[Verb, ...] = (
    Verb("live in", "lives in", "living in", "lives_in", "fact", 0.8, "place",
         "By the way, I live in Rome now, close to my sister.", "The user lives in Rome."),
    Verb("live near", "lives near", "living near", "lives_near", "fact", 0.6, "place",
         "We live near the Black Sea.", "The user lives near the Black Sea."),
    Verb("live with", "lives with", "living with", "lives_with", "relationship", 0.6, "noun",
         "I live with my parents.", "The user lives with their parents."),
    Verb("work as", "works as", "working as", "works_as", "fact", 0.75, "noun",
         "I work as a nurse.", "The user works as a nurse."),
    Verb("work at", "works at", "working at", "works_at", "fact", 0.75, "noun",
         "I work at Siemens.", "The user works at Siemens."),
    Verb("work for", "works for", "working for", "works_for", "fact", 0.75, "noun",
         "I work for the city council.", "The user works for the city council."),
    Verb("work in", "works in", "working in", "works_in", "fact", 0.65, "noun",
         "I work in marketing.", "The user works in marketing."),
    Verb("work from", "works from", "working from", "works_from", "fact", 0.5, "noun",
         "I work from home.", "The user works from home."),
    Verb("volunteer at", "volunteers at", "volunteering at", "volunteers_at", "fact", 0.55, "noun",
         "I volunteer at an animal shelter.", "The user volunteers at an animal shelter."),
    Verb("eat", "eats", "eating", "eats", "preference", 0.65, "list",
         "I no longer eat meat.", "The user no longer eats meat."),
    Verb("drink", "drinks", "drinking", "drinks", "preference", 0.55, "list",
         "I drink green tea.", "The user drinks green tea."),
    Verb("smoke", "smokes", "smoking", "smokes", "attribute", 0.6, "noun",
         "I used to smoke cigars.", "The user used to smoke cigars."),
    Verb("like", "likes", "liking", "likes", "preference", 0.5, "list",
         "I don't like olives.", "The user does not like olives."),
    Verb("love", "loves", "loving", "likes", "preference", 0.55, "list",
         "i love hiking", "The user loves hiking."),
    Verb("enjoy", "enjoys", "enjoying", "likes", "preference", 0.5, "list",
         "I really enjoy board games.", "The user enjoys board games."),
    Verb("adore", "adores", "adoring", "likes", "preference", 0.55, "list",
         "I adore old maps.", "The user adores old maps."),
    Verb("care for", "cares for", "caring for", "cares_for", "relationship", 0.5, "noun",
         "I care for my grandmother.", "The user cares for their grandmother."),
    Verb("hate", "hates", "hating", "dislikes", "preference", 0.55, "list",
         "I hate cilantro.", "The user hates cilantro."),
    Verb("dislike", "dislikes", "disliking", "dislikes", "preference", 0.5, "list",
         "I dislike loud bars.", "The user dislikes loud bars."),
    Verb("detest", "detests", "detesting", "dislikes", "preference", 0.55, "list",
         "I detest small talk.", "The user detests small talk."),
    Verb("speak", "speaks", "speaking", "speaks", "skill", 0.6, "list",
         "I don't speak Dutch.", "The user does not speak Dutch."),
    Verb("play", "plays", "playing", "plays", "skill", 0.5, "list",
         "I play the piano.", "The user plays the piano."),
    Verb("drive", "drives", "driving", "drives", "fact", 0.5, "noun",
         "I drive a Skoda.", "The user drives a Skoda."),
    Verb("own", "owns", "owning", "owns", "fact", 0.5, "noun",
         "I own a small boat.", "The user owns a small boat."),
    Verb("collect", "collects", "collecting", "collects", "preference", 0.5, "list",
         "I collect stamps.", "The user collects stamps."),
    Verb("wear", "wears", "wearing", "wears", "attribute", 0.4, "noun",
         "I wear glasses.", "The user wears glasses."),
    Verb("teach", "teaches", "teaching", "teaches", "skill", 0.55, "noun",
         "I teach physics.", "The user teaches physics."),
    Verb("study", "studies", "studying", "studies", "fact", 0.6, "noun",
         "I'm studying medicine.", "The user studies medicine."),
)  # fmt: skip

RELATION = (
    r"(?:(?:older|younger|little|big|oldest|youngest|eldest|middle|best|twin|new|late|ex|ex-|former|closest|foster|step|half|great)[ -]?)?"
    r"(?:wife|husband|spouse|partner|girlfriend|boyfriend|fianc[eé]e?|mother|mom|mum|father|dad|brother|sister|sibling|son|daughter|child|"
    r"kid|baby|grandmother|grandma|grandfather|grandpa|granddaughter|grandson|aunt|uncle|cousin|nephew|niece|friend|boss|manager|"
    r"colleague|coworker|co-worker|roommate|flatmate|housemate|neighbou?r|doctor|dentist|therapist|teacher|landlord|landlady|mentor|coach|"
    r"(?:mother|father|brother|sister|son|daughter)-in-law|stepmother|stepfather|stepson|stepdaughter|godson|goddaughter)"
)
PET = r"(?:dog|puppy|cat|kitten|parrot|budgie|hamster|rabbit|bunny|horse|pony|tortoise|turtle|guinea pig|snake|lizard|goldfish|ferret|pet)"
_COUNT = r"(?:\d{1,2}|two|three|four|five|six|seven|eight|nine|ten)"
_KIN_ONE = r"(?:son|daughter|kid|child|baby|brother|sister|twin|dog|cat|puppy|kitten|horse|parrot|rabbit|hamster|tortoise|turtle|snake|ferret|guinea pig)"
_KIN_MANY = r"(?:kids|children|sons|daughters|brothers|sisters|siblings|grandchildren|dogs|cats|puppies|kittens|horses|parrots|rabbits|hamsters|turtles|snakes|guinea pigs|pets)"
SINGULAR = {
    "kid": "child", "kids": "child", "children": "child", "sons": "son", "daughters": "daughter", "brothers": "brother", "sisters": "sister",
    "siblings": "sibling", "grandchildren": "grandchild", "dogs": "dog", "cats": "cat", "puppies": "puppy", "kittens": "kitten",
    "horses": "horse", "parrots": "parrot", "rabbits": "rabbit", "hamsters": "hamster", "turtles": "turtle", "snakes": "snake",
    "guinea pigs": "guinea pig", "pets": "pet",
}  # fmt: skip
WORD = r"[^\W\d_][\w'’-]{0,30}"
_NAME = rf"{WORD}(?: {WORD}){{0,2}}"
_INSTRUCTION = (
    r"(?:answer|reply|respond|write|use|speak|talk|call me|address|include|add|mention|ask|give me|provide|show|explain|cite|format|keep|start|"
    r"begin|end|finish|sign|suggest|recommend|assume|round|convert|check|list|return|output|apologi[sz]e|greet|quote|refer|summari[sz]e|"
    r"send|offer|be (?:brief|concise|short|polite|honest|direct|formal|informal|critical))"
)
_LANGUAGE = (
    r"(?:English|French|German|Spanish|Italian|Portuguese|Dutch|Swedish|Norwegian|Danish|Finnish|Polish|Czech|Slovak|Hungarian|Romanian|"
    r"Bulgarian|Greek|Turkish|Russian|Ukrainian|Arabic|Hebrew|Persian|Farsi|Hindi|Urdu|Bengali|Tamil|Chinese|Mandarin|Cantonese|Japanese|"
    r"Korean|Vietnamese|Thai|Indonesian|Malay|Swahili|Catalan|Latin|Serbian|Croatian|Slovenian|Irish|Welsh|Icelandic|Esperanto)"
)
_NATIONALITY = (
    r"(?:(?:African|Asian|Latin|Native|Mexican|Irish|Italian|Chinese|Japanese|Korean|Indian|British)[ -])?(?:Afghan|Albanian|Algerian|American|Argentinian|Argentine|Armenian|Australian|Austrian|Azerbaijani|Bangladeshi|Belarusian|"
    r"Belgian|Bolivian|Bosnian|Brazilian|British|Bulgarian|Cambodian|Canadian|Catalan|Chilean|Chinese|Colombian|Croatian|Cuban|Czech|Danish|Dominican|"
    r"Dutch|Ecuadorian|Egyptian|English|Estonian|Ethiopian|Filipino|Filipina|Finnish|French|Georgian|German|Ghanaian|Greek|Guatemalan|Hungarian|Icelandic|"
    r"Indian|Indonesian|Iranian|Iraqi|Irish|Israeli|Italian|Jamaican|Japanese|Jordanian|Kazakh|Kenyan|Korean|Kurdish|Latvian|Lebanese|Lithuanian|"
    r"Macedonian|Malaysian|Mexican|Moldovan|Mongolian|Moroccan|Nepali|Nigerian|Norwegian|Pakistani|Palestinian|Peruvian|Polish|Portuguese|Puerto Rican|"
    r"Romanian|Russian|Scottish|Senegalese|Serbian|Singaporean|Slovak|Slovenian|Somali|South African|Spanish|Sudanese|Swedish|Swiss|Syrian|"
    r"Taiwanese|Tanzanian|Thai|Tunisian|Turkish|Ugandan|Ukrainian|Uruguayan|Uzbek|Venezuelan|Vietnamese|Welsh|Zimbabwean)"
)
_DIET = r"(?:vegetarian|vegan|pescatarian|pescetarian|flexitarian|teetotal(?:er|ler)?|kosher|halal|keto|gluten[- ]free|dairy[- ]free|plant[- ]based)"
_HEALTH = (
    r"(?:(?:type [12] |chronic |severe |mild )?(?:diabetes|asthma|adhd|add|epilepsy|arthritis|migraines?|insomnia|anxiety|depression|"
    r"c(?:o)?eliac disease|hay fever|high blood pressure|hypertension|autism|dyslexia|crohn's disease|tinnitus|eczema|psoriasis|"
    r"hypothyroidism|anemia|anaemia|scoliosis|sleep apnea|glaucoma|cancer))"
)
_OCCUPATION = (
    r"(?:accountant|actor|actress|administrator|analyst|anaesthetist|anesthesiologist|animator|archaeologist|architect|artist|astronomer|"
    r"athlete|attorney|author|baker|banker|barber|barista|bartender|biologist|blogger|bookkeeper|botanist|brewer|builder|bus driver|"
    r"butcher|carpenter|cashier|chef|chemist|cleaner|clerk|coach|composer|consultant|contractor|cook|counsell?or|courier|curator|"
    r"dancer|dentist|designer|developer|director|doctor|driver|economist|editor|electrician|engineer|entrepreneur|farmer|"
    r"filmmaker|firefighter|fisherman|florist|founder|freelancer|gardener|geologist|graphic designer|hairdresser|historian|illustrator|"
    r"influencer|instructor|interpreter|inventor|investor|janitor|jeweller|jeweler|journalist|judge|lawyer|lecturer|librarian|linguist|"
    r"locksmith|manager|mathematician|mechanic|midwife|miner|model|musician|nanny|neurologist|novelist|nurse|nutritionist|optician|painter|"
    r"paramedic|pastor|pediatrician|pharmacist|philosopher|photographer|physician|physicist|physiotherapist|pianist|pilot|plumber|poet|"
    r"police officer|policeman|politician|priest|producer|professor|programmer|psychiatrist|psychologist|radiologist|realtor|receptionist|"
    r"recruiter|reporter|researcher|sailor|salesman|salesperson|scientist|screenwriter|sculptor|secretary|singer|"
    r"social worker|soldier|songwriter|statistician|student|surgeon|tailor|taxi driver|teacher|technician|therapist|translator|"
    r"tutor|veterinarian|vet|veteran|waiter|waitress|welder|writer|yoga instructor|zoologist)"
)
_IDENTITY = (
    r"(?:mother|father|mom|mum|dad|parent|single mom|single mum|single dad|single parent|grandmother|grandfather|grandparent|twin|widow|"
    r"widower|immigrant|refugee|christian|catholic|protestant|muslim|jew|hindu|buddhist|sikh|atheist|agnostic|introvert|extrovert|"
    r"night owl|early bird|morning person|cat person|dog person|homeowner|beginner|minimalist|feminist|pacifist|"
    r"citizen|vampire fan|perfectionist|runner|cyclist|climber|swimmer|gamer|hiker|surfer|drummer|guitarist|violinist|bookworm|foodie)"
)
_ATTRIBUTE = (
    r"(?:e-?mail(?: address)?|(?:phone|mobile|cell|telephone)(?: number)?|time ?zone|(?:home |postal |street )?address|zip code|post ?code|pronouns|"
    r"blood (?:type|group)|height|weight|(?:star|zodiac) sign|nationality|native language|mother tongue|first language|job title|username|"
    r"github(?: username| handle)?|twitter(?: handle)?|shoe size|eye colou?r|hair colou?r|hometown|home town|religion|middle name|"
    r"surname|last name|maiden name|full name|nickname|job|profession|occupation|employer|company|major|citizenship|dream job)"
)
_STATE = r"(?:single|married|divorced|engaged|widowed|separated|pregnant|retired|unemployed|self-employed|left-handed|right-handed|colou?r-?blind|deaf|blind|bilingual|transgender|gay|lesbian|bisexual|non-?binary|autistic|diabetic|dyslexic)"
PAST = (
    r"(?:went|visited|ran(?! out)|walked|hiked|climbed|swam|biked|cycled|bought|got(?! to\b)|started|began|finished|completed|joined|adopted|graduated|met|saw|"
    r"watched|attended|won|lost|broke|quit|sold|built|made|painted|baked|cooked|booked|signed up|enrolled|applied|passed|failed|"
    r"received|took|flew|drove|travel+ed|volunteered|celebrated|married|hosted|organi[sz]ed|launched|published|wrote|learned|learnt|tried|"
    r"fell|injured|sprained|hurt|had(?! to\b)|spent|played|performed|participated|camped|picked up|planted|donated|created|retired|"
    r"presented|recorded|opened|repaired|fixed|moved|returned|gave|read|set up|ordered|submitted|dropped|hired|rented|renovated|caught|"
    r"was (?:diagnosed|hired|fired|promoted|laid off|accepted|admitted|robbed|awarded|invited|selected|elected|in hospital|hospitali[sz]ed)|"
    r"were (?:hired|fired|invited|accepted)|came back|got back|ended up|broke up|gave birth|started learning|threw|raised|earned|"
    r"discovered|found|checked out|stopped by|dined|ate|interviewed|finali[sz]ed|secured|landed|filed|upgraded|reached)"
)
# What happened is worth keeping without a date only when it is seldom and weighty.
WEIGHTY = (
    r"(?:graduated|adopted|joined|signed up|enrolled|won|quit|retired|published|launched|gave birth|broke up|"
    r"got (?:married|engaged|divorced|promoted|hired|fired|laid off|accepted|pregnant|a (?:new )?(?:job|puppy|dog|cat|kitten|promotion|tattoo))|"
    r"was (?:diagnosed|hired|fired|promoted|laid off|accepted|admitted|awarded|elected)|"
    r"(?:bought|sold) (?:a|an|our|my) (?:new |used )?(?:house|flat|apartment|car|home|boat|van|motorcycle|bike)|"
    r"lost my (?:job|father|mother|dad|mom|mum|brother|sister|wife|husband|grandmother|grandfather|grandma|grandpa|dog|cat)|"
    r"broke my|opened (?:a|an|my) (?:\w+ )?(?:shop|store|restaurant|caf[eé]|studio|gym|business|bakery|bar)|"
    r"started (?:a|an|my|my own) (?:\w+ )?(?:job|business|company|blog|podcast|degree|course|family|band)|"
    r"passed (?:my|the) (?:\w+ )?(?:exam|test|exams|bar))"
)

RULES: tuple[Rule, ...] = (
    # Who it is.
    Rule(r"my (?:full |first )?name is (?P<o>.+)", "attribute", "name", "{P} name is {o}.", 0.95, "name",
         "my name is Ana María, nice to meet you", "The user's name is Ana María."),
    Rule(r"(?:(?:please|from now on|you can|just|everyone|everybody|people|my friends|friends|they|you may),? )*(?:call|calls) me (?P<o>.+)", "attribute", "nickname",
         "{S} goes by {o}.", 0.9, "name", "You can call me Sam.", "The user goes by Sam."),
    Rule(r"I (?:go by|am called) (?P<o>.+)", "attribute", "nickname", "{S} goes by {o}.", 0.9, "name", "I go by Kit.", "The user goes by Kit."),
    Rule(r"I am (?P<o>\d{1,3})(?: years? old| y/?o)?$", "attribute", "age", "{S} is {o} years old.", 0.7, "noun", "I'm 34 years old.", "The user is 34 years old."),
    Rule(r"I (?:have )?(?:just |recently )?turned (?P<o>\d{1,3})\b", "attribute", "age", "{S} turned {o}.", 0.7, "noun",
         "I just turned 40!", "The user turned 40.", dated=True),
    Rule(r"my birthday is (?:on )?(?:the )?(?P<o>.+)", "attribute", "birthday", "{P} birthday is {o}.", 0.85, "value", "My birthday is on 5 May.", "The user's birthday is 5 May."),
    Rule(r"I was born on (?:the )?(?P<o>.+)", "attribute", "birthday", "{S} was born on {o}.", 0.85, "value",
         "I was born on 3 March 1990.", "The user was born on 3 March 1990."),
    Rule(r"I was born (?:and raised )?in (?P<o>.+)", "attribute", "born_in", "{S} was born in {o}.", 0.75, "place",
         "I was born in Lagos.", "The user was born in Lagos."),
    Rule(r"I (?:grew up|was raised) in (?P<o>.+)", "fact", "grew_up_in", "{S} grew up in {o}.", 0.65, "place", "I grew up in São Paulo.", "The user grew up in São Paulo."),
    Rule(r"I (?:am|come) (?:originally )?from (?P<o>.+)", "attribute", "from", "{S} is from {o}.", 0.7, "place",
         "I'm originally from Kyoto, Japan.", "The user is from Kyoto, Japan."),
    Rule(rf"my (?P<what>{_ATTRIBUTE}) (?:is|are) (?P<o>.+)", "attribute", "{what}", "{P} {what} is {o}.", 0.75, "value",
         "my time zone is Europe/Lisbon", "The user's time zone is Europe/Lisbon."),
    Rule(rf"I am (?:half |part )?(?P<o>{_NATIONALITY})(?:$|[,;]| (?:and|but|by|living|from)\b)", "attribute", "nationality", "{S} is {o}.", 0.7, "noun", "I'm Brazilian.", "The user is Brazilian."),
    Rule(rf"I am (?P<o>{WORD}(?: {WORD})?)$", "attribute", "name", "{P} name is {o}.", 0.9, "name", "Hi, I'm Tom and I live in Porto.", "The user's name is Tom."),
    Rule(r"my (?:(?:favou?rite |main )?(?:hobby|hobbies|pastimes?)) (?:is|are|include) (?P<o>.+)", "preference", "likes", "{P} hobbies include {o}.", 0.55, "list",
         "My hobbies are chess and baking.", "The user's hobbies include chess."),
    Rule(r"I weigh (?:about |around )?(?P<o>\d.+)", "attribute", "weight", "{S} weighs {o}.", 0.5, "noun", "I weigh 80 kg.", "The user weighs 80 kg."),
    Rule(r"I am (?:about |around )?(?P<o>\d[^,;]{0,20}?) tall\b", "attribute", "height", "{S} is {o} tall.", 0.5, "noun", "I'm 180 cm tall.", "The user is 180 cm tall."),
    # Rules for the assistant.
    Rule(rf"(?:(?:please|always|only|from now on|in (?:the )?future|going forward),? )+(?:answer|reply|respond|write|speak|talk)(?: to me| back)?(?: only| always)? in (?P<o>{_LANGUAGE})\b",
         "rule", "answer_language", "{S} asks for answers in {o}.", 0.9, "noun",
         "Please always answer in French.", "The user asks for answers in French."),
    Rule(rf"(?:(?:please|from now on|in (?:the )?future|going forward|you (?:should|must)|I (?:want|need|would like) you to|remember to),? )*(?P<o>(?:always|never) {_INSTRUCTION}\b.*)",
         "rule", "instructs", "{S} asks: {o}.", 0.85, "phrase", "never use emojis", "The user asks: never use emojis."),
    Rule(rf"(?:please,? )?(?P<o>(?:do not|stop|avoid) (?:ever )?(?:{_INSTRUCTION}|using|writing|adding|asking|calling|apologi[sz]ing|mentioning|giving|including|starting|ending)\b.*)",
         "rule", "instructs", "{S} asks: {o}.", 0.8, "phrase", "Please don't use bullet points.", "The user asks: do not use bullet points."),
    Rule(rf"(?:from now on|in (?:the )?future|going forward),? (?:please )?(?P<o>{_INSTRUCTION}\b.*)", "rule", "instructs", "{S} asks: {o}.", 0.85, "phrase",
         "From now on, keep it under 100 words.", "The user asks: keep it under 100 words."),
    Rule(r"(?:please )?(?P<o>keep (?:your|all|the) (?:answers|replies|responses|explanations|messages)\b.*)", "rule", "instructs", "{S} asks: {o}.", 0.8, "phrase",
         "Please keep your answers short.", "The user asks: keep your answers short."),
    # Health and food.
    Rule(r"I am (?:\w+ly )?allergic to (?P<o>.+)", "attribute", "allergic_to", "{S} is allergic to {o}.", 0.95, "list",
         "I'm severely allergic to peanuts", "The user is allergic to peanuts."),
    Rule(r"I am not (?:actually )?allergic to (?P<o>.+?)(?: anymore)?$", "attribute", "not_allergic_to", "{S} is not allergic to {o}.", 0.8, "list",
         "I'm not allergic to nuts anymore.", "The user is not allergic to nuts."),
    Rule(r"I have an? (?:\w+ )?allergy to (?P<o>.+)", "attribute", "allergic_to", "{S} is allergic to {o}.", 0.95, "list",
         "I have an allergy to penicillin.", "The user is allergic to penicillin."),
    Rule(r"I have an? (?P<o>[\w-]{2,30}) allergy\b", "attribute", "allergic_to", "{S} has a {o} allergy.", 0.95, "noun",
         "I have a shellfish allergy.", "The user has a shellfish allergy."),
    Rule(r"I am (?P<o>[\w-]{2,20}) intolerant\b", "attribute", "intolerant_to", "{S} is {o} intolerant.", 0.85, "noun",
         "I'm lactose intolerant.", "The user is lactose intolerant."),
    Rule(rf"I am (?:a |an )?(?:strict |lifelong |committed )?(?P<o>{_DIET})\b(?! (?:chef|restaurant|cook))", "attribute", "diet", "{S} is {o}.", 0.8, "noun",
         "I'm vegetarian.", "The user is vegetarian."),
    Rule(rf"I am no longer (?:a |an )?(?P<o>{_DIET})\b", "attribute", "no_longer_diet", "{S} is no longer {o}.", 0.75, "noun",
         "I'm no longer vegan.", "The user is no longer vegan."),
    Rule(r"I cannot (?P<v>eat|drink|have|tolerate) (?P<o>.+)", "attribute", "cannot_eat", "{S} cannot {v} {o}.", 0.85, "list", "I can't eat gluten.", "The user cannot eat gluten."),
    Rule(rf"I (?:have|suffer from|was diagnosed with|have been diagnosed with|live with) (?P<o>{_HEALTH})\b", "attribute", "has_condition", "{S} has {o}.", 0.85, "noun",
         "I have asthma.", "The user has asthma."),
    # Tastes.
    Rule(r"my (?:all[- ]time |absolute |number one )?(?P<fav>favou?rite) (?P<what>(?!one\b|thing|part|of\b|way|time)[^\W\d_][\w'-]{0,20}(?: [\w'-]{1,20}){0,2}?) (?:is|are|has always been) (?:still |probably |definitely )?(?P<o>.+)",
         "preference", "favorite_{what}", "{P} {fav} {what} is {o}.", 0.65, "noun", "My favorite color is blue.", "The user's favorite color is blue."),
    Rule(r"(?P<o>[^,;]{2,60}?) (?:is|are) (?:definitely |by far |still )?my (?:all[- ]time |absolute )?(?P<fav>favou?rite) (?P<what>(?!one\b|thing|part|of\b|way|time)[^\W\d_][\w'-]{0,20}(?: [\w'-]{1,20}){0,2})$",
         "preference", "favorite_{what}", "{P} {fav} {what} is {o}.", 0.65, "noun", "Dune is my favourite book.", "The user's favourite book is Dune."),
    Rule(r"I (?:much |strongly )?prefer (?P<o>.+)", "preference", "prefers", "{S} prefers {o}.", 0.6, "phrase",
         "I prefer tea over coffee.", "The user prefers tea over coffee."),
    Rule(r"I cannot stand (?P<o>.+)", "preference", "dislikes", "{S} cannot stand {o}.", 0.55, "list", "I can't stand jazz.", "The user cannot stand jazz."),
    Rule(r"I am not (?:a (?:big |huge )?fan of|into|fond of|keen on) (?P<o>.+)", "preference", "dislikes", "{S} does not like {o}.", 0.5, "list",
         "I'm not a fan of horror movies.", "The user does not like horror movies."),
    Rule(r"I am (?:a (?:big |huge |massive )?fan of|into|fond of|keen on|crazy about|obsessed with) (?P<o>.+)", "preference", "likes", "{S} likes {o}.", 0.5, "list",
         "I'm a big fan of Björk.", "The user likes Björk."),
    Rule(r"I am passionate about (?P<o>.+)", "preference", "passionate_about", "{S} is passionate about {o}.", 0.6, "phrase",
         "I'm passionate about clean water.", "The user is passionate about clean water."),
    Rule(r"I am interested in (?P<o>.+)", "preference", "interested_in", "{S} is interested in {o}.", 0.5, "list", "I'm interested in astronomy.", "The user is interested in astronomy."),
    # Skills.
    Rule(r"I (?:can )?speak (?:fluent |some |a (?:bit|little)(?: of)? |basic )?(?P<o>.+?)(?: fluently| well)?$", "skill", "speaks", "{S} speaks {o}.", 0.65, "list",
         "I speak fluent Swahili.", "The user speaks Swahili."),
    Rule(r"I am (?:fluent|bilingual|conversational) in (?P<o>.+)", "skill", "speaks", "{S} is fluent in {o}.", 0.65, "list", "I'm fluent in Tamil.", "The user is fluent in Tamil."),
    Rule(r"I know how to (?P<o>.+)", "skill", "knows_how_to", "{S} knows how to {o}.", 0.55, "phrase", "I know how to weld.", "The user knows how to weld."),
    Rule(r"I can (?P<o>(?:swim|cook|juggle|code|program|drive|ski|skate|surf|sew|knit|weld|sail|ride|play (?:the )?\w+)\b.*)", "skill", "knows_how_to",
         "{S} can {o}.", 0.5, "phrase", "I can play the cello.", "The user can play the cello."),
    Rule(r"I (?:am good|am great|excel) at (?P<o>.+)", "skill", "good_at", "{S} is good at {o}.", 0.5, "list", "I'm good at chess.", "The user is good at chess."),
    Rule(r"I (?:code|program|develop) (?:mostly |mainly )?in (?P<o>.+)", "skill", "programs_in", "{S} programs in {o}.", 0.55, "list", "I code in Go.", "The user programs in Go."),
    Rule(r"I am (?:learning|teaching myself|taking up) (?:how )?(?P<o>.+)", "skill", "learns", "{S} is learning {o}.", 0.55, "noun", "I'm learning Rust.", "The user is learning Rust."),
    # Work and places.
    Rule(r"I work (?P<at>at|for) (?P<o>[^,;]{1,60}?) as (?=an? |the |head|chief)", "fact", "works_at", "{S} works {at} {o}.", 0.75, "noun",
         "I work at Acme as a chemist.", "The user works at Acme.", further=True),
    Rule(r"I work (?:at|for) [^,;]{1,60}? as (?P<o>.+)", "fact", "works_as", "{S} works as {o}.", 0.75, "noun", "I work for Zoho as a tester.", "The user works as a tester."),
    Rule(r"I work as (?P<o>.+?) (?:at|for) (?=\S)", "fact", "works_as", "{S} works as {o}.", 0.75, "noun", "I work as a baker at Hofpfisterei.", "The user works as a baker.", further=True),
    Rule(r"I work as [^,;]{1,60}? (?P<at>at|for) (?P<o>.+)", "fact", "works_at", "{S} works {at} {o}.", 0.75, "noun", "I work as a baker at Paul.", "The user works at Paul."),
    Rule(rf"I am (?P<o>(?:an? |the )?(?:[\w-]{{2,20}} ){{0,3}}?{_OCCUPATION})(?:$|[,;]| (?:at|in|for|by|who|and|from|with|working|specializing|specialising|now)\b)", "fact", "works_as",
         "{S} is {o}.", 0.75, "noun", "I'm a pediatric nurse in Oslo.", "The user is a pediatric nurse."),
    Rule(rf"I am (?P<o>an? (?:[\w-]{{2,20}} ){{0,2}}?{_IDENTITY})(?:$|[,;]| (?:of|and|from|who)\b)", "attribute", "is_a", "{S} is {o}.", 0.65, "noun",
         "I am an introvert.", "The user is an introvert."),
    Rule(r"I (?P<v>majored|have an? (?:degree|phd|master's|bachelor's|doctorate)) in (?P<o>.+)", "fact", "has_degree_in", "{S} has a degree in {o}.", 0.6, "noun",
         "I have a degree in botany.", "The user has a degree in botany."),
    Rule(r"(?:I|we) (?:have )?(?:just |recently |finally )?(?:moved|relocated) (?:back |over )?(?:here )?from (?P<a>[^,;]{1,50}?) (?:back |over )?to (?P<o>.+)", "fact", "lives_in",
         "{S} lives in {o}.", 0.8, "place", "I moved from Paris to Berlin.", "The user lives in Berlin.", dated=True, further=True),
    Rule(r"(?:I|we) (?:have )?(?:just |recently |finally )?(?:moved|relocated) (?:back |over )?(?:here )?from (?P<o>[^,;]{1,50}?) (?:back |over )?to ", "fact", "no_longer_lives_in",
         "{S} no longer lives in {o}.", 0.6, "place", "We moved from Minsk to Vilnius.", "The user no longer lives in Minsk.", dated=True),
    Rule(r"(?:I|we) (?:have )?(?:just |recently |finally )?(?:moved|relocated) (?:back |over )?here from (?P<o>.+)", "event", "moved_from", "{S} moved here from {o}.", 0.6, "place",
         "I moved here from Chile.", "The user moved here from Chile.", dated=True),
    Rule(r"(?:I|we) (?:have )?(?:just |recently |finally )?(?:moved|relocated) (?:back |over )?to (?!an?\b|the (?:city|country)|my\b|our\b|another\b|be\b)(?P<o>.+)", "fact", "lives_in",
         "{S} lives in {o}.", 0.8, "place", "I've just moved to Oslo.", "The user lives in Oslo.", dated=True),
    # People and animals.
    Rule(r"I am (?P<how>married|engaged) to (?P<o>.+)", "relationship", "married_to", "{S} is {how} to {o}.", 0.8, "name", "I'm married to Tomás.", "The user is married to Tomás."),
    Rule(r"I am (?:dating|seeing|going out with) (?P<o>.+)", "relationship", "dates", "{S} is dating {o}.", 0.65, "name", "I'm dating Kim.", "The user is dating Kim."),
    Rule(rf"I am (?:currently |now |happily |recently )?(?P<o>{_STATE})(?:$|[,;]| (?:and|now|since|for|with|from)\b)", "attribute", "is", "{S} is {o}.", 0.65, "noun",
         "I'm divorced.", "The user is divorced."),
    Rule(rf"(?:I|we) have (?P<n>{_COUNT}) (?:\w+ )?(?P<what>{_KIN_MANY})\b", "relationship", "number_of_{what}", "{S} has {n} {what}.", 0.7, "noun",
         "I have two kids, Tom and Lea.", "The user has two kids.", object="{n}", further=True),
    Rule(rf"(?:I|we) have (?:(?:an?|one|{_COUNT}) )?(?:\w+ )?(?P<kin>{_KIN_MANY}|{_KIN_ONE})(?:,? (?:named|called),?|,|:|,? their names are) (?P<o>.+)", "relationship", "has_{kin}",
         "{S} has a {kin} named {o}.", 0.7, "name", "We have a dog named Kuro.", "The user has a dog named Kuro.", further=True),
    Rule(rf"(?:I|we) have (?P<o>(?:an?|one) (?:\w+ )?{_KIN_ONE})\b(?! (?:named|called))", "relationship", "has", "{S} has {o}.", 0.6, "noun",
         "I have an older sister.", "The user has an older sister."),
    Rule(r"I (?P<how>do not|no longer|never|have stopped|stopped|quit|gave up) (?:smoke|smoking)$", "attribute", "no_longer_smokes", "{S} {how}.", 0.65, "noun",
         "I don't smoke.", "The user does not smoke.", object="tobacco"),
    Rule(r"I smoke$", "attribute", "smokes", "{S} smokes.", 0.6, "noun", "I smoke.", "The user smokes.", object="tobacco"),
    Rule(rf"my (?P<what>{RELATION}|{PET})(?: is| was)?(?:'s name is| is called| is named| called| named| goes by) (?P<o>.+)", "relationship", "has_{what}", "{P} {what} is called {o}.", 0.7, "name",
         "My dog is called Rex.", "The user's dog is called Rex."),
    Rule(rf"my (?P<what>{RELATION}|{PET})(?:,? is|,) (?P<o>{_NAME})$", "relationship", "has_{what}", "{P} {what} is {o}.", 0.7, "name",
         "My boss is Ingrid.", "The user's boss is Ingrid."),
    Rule(rf"my (?P<what>{RELATION}|{PET}),? (?P<o>{WORD}),? (?=is|was|has|works|lives|loves|likes|plays|and|just|who|studies|teaches|speaks|got|moved)", "relationship", "has_{what}",
         "{P} {what} is {o}.", 0.7, "name", "My cat Miso is fat.", "The user's cat is Miso.", further=True),
    Rule(rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)? is (?P<o>(?:an? |the )?(?:[\w-]{{2,20}} ){{0,3}}?{_OCCUPATION})(?:$|[,;]| (?:at|in|for|by|who|and|from|with)\b)", "person", "works_as",
         "{S} is {o}.", 0.6, "noun", "My wife Anna is a teacher.", "Anna, the user's wife, is a teacher."),
    Rule(rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)? is (?:\w+ly )?allergic to (?P<o>.+)", "person", "allergic_to", "{S} is allergic to {o}.", 0.85, "list",
         "My son is allergic to bees.", "The user's son is allergic to bees."),
    Rule(rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)? is (?P<o>\d{{1,3}})(?: years? old| y/?o)?$", "person", "age", "{S} is {o} years old.", 0.5, "noun",
         "My daughter is 7.", "The user's daughter is 7 years old."),
    Rule(rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)? is (?P<o>an? .+|from .+|vegan|vegetarian|pregnant|{_STATE})$", "person", "is", "{S} is {o}.", 0.5, "noun",
         "My brother is a vegan.", "The user's brother is a vegan."),
    Rule(rf"my (?P<r>{RELATION}|{PET})(?:,? (?P<s>{WORD}),?)? (?:has )?(?P<o>passed away|died)\b", "event", "died", "{S} {o}.", 0.8, "noun",
         "My grandfather passed away yesterday.", "The user's grandfather passed away on 19 May 2023.", dated=True),
    # What is to come.
    Rule(r"I (?P<verb>am planning (?:to|on)|am hoping to|am preparing (?:to|for)|am training for|am saving (?:up )?for|plan (?:to|on)|intend to|hope to) (?P<o>.+)", "fact", "plans",
         "{S} {verb} {o}.", 0.5, "phrase", "I'm planning to visit Iceland next month.", "The user is planning to visit Iceland in June 2023.",
         dated=True, ahead=True),
    Rule(r"(?:I am|we are) (?:going to )(?P<o>(?:visit|buy|get married|move|travel|fly|start|study|apply|marry|adopt|have a baby|retire|run|take|open|attend|join|quit|learn)\b.*)", "fact", "plans",
         "{S} plans to {o}.", 0.5, "phrase", "I am going to run a marathon in October.", "The user plans to run a marathon in October 2023.", dated=True, ahead=True),
    Rule(r"my (?:big |main |ultimate |long-term |new )?(?P<what>goal|dream|plan|new year's resolution) is (?:to )?(?P<o>.+)", "fact", "has_goal", "{P} {what} is to {o}.", 0.55, "phrase",
         "My goal is to read 20 books.", "The user's goal is to read 20 books."),
    Rule(r"I am (?:currently )?working on (?P<o>.+)", "fact", "works_on", "{S} is working on {o}.", 0.5, "noun", "I'm working on a novel.", "The user is working on a novel."),
    Rule(r"(?:I am|we are) (?P<o>(?:getting married|moving (?:to|into|back)|starting|visiting|flying|traveling|travelling|going to|leaving for|having|taking|running|graduating|retiring)\b.*)", "fact", "plans",
         "{S} is {o}.", 0.5, "phrase", "I'm getting married next June.", "The user is getting married in June 2023.", dated=True, ahead=True, timed=True),
    # What happened.
    Rule(r"(?:I|we) got (?P<o>married|engaged|divorced)\b", "event", "got", "{S} got {o}.", 0.75, "noun",
         "We got married last year.", "The user got married in 2022.", dated=True),
    Rule(r"I have been (?P<o>(?!thinking|feeling|trying|wanting|meaning|wondering|hearing|doing|having|getting|looking|going|keeping|being|talking|waiting|hoping|dying|working (?:hard|on (?:this|it))|telling|saying|seeing|struggling|dealing|finding)(?!.*\b(?:it|this|that|them|ever since)\b)[a-z]{3,20}ing\b.+)", "fact", "does", "{S} has been {o}.", 0.4, "phrase", "I've been playing chess for 3 years.", "The user has been playing chess since 2020."),
    Rule(r"(?:I|we) have been to (?P<o>.+)", "event", "visited", "{S} has been to {o}.", 0.45, "list", "I've been to Peru.", "The user has been to Peru.", dated=True),
)  # fmt: skip
