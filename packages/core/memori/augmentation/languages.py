"""The most ordinary statements of oneself in languages other than English. Data, with an example in each row.

The content of such a fact is the statement itself, in the words and script of its source; only the predicate is
English, so that what is said in one language takes the place of what was said in another.
"""

# Full-width marks and letters of other scripts are what people write.
# ruff: noqa: E501, RUF001

from __future__ import annotations

from typing import NamedTuple

from memori.types import FactKind

__all__ = ["CONNECTIVES", "EMPTY", "PHRASES", "Phrase"]


class Phrase(NamedTuple):
    """One row: a statement that begins with *pattern*, whose group ``o`` is the object, and ``what`` its sort."""

    pattern: str
    kind: FactKind
    predicate: str
    importance: float
    example: str
    object: str


# Between two statements of one sentence.
CONNECTIVES = r"\s*[,;，；、,]\s*|\s+(?:y|et|und|e|и)\s+"
# What an object must not begin with: it points elsewhere, or negates.
EMPTY = (
    r"(?:que|cuando|mucho|lo|eso|esto|como|pas|bien|quand|ça|cela|beaucoup|te|vous|es|nicht|kein\w*|dich|das|wie|sie|ihn|"
    r"che|molto|quando|come|questo|quello|disso|isso|você|тебя|его|её|ее|когда|это|что|вас|не|их)(?!\w)|[你他她它这那您]|それ|これ|あなた"
)

PHRASES: tuple[Phrase, ...] = (
    # Spanish
    Phrase(r"(?:yo )?me llamo (?P<o>.+)", "attribute", "name", 0.95, "Me llamo Lucía", "Lucía"),
    Phrase(r"mi nombre es (?P<o>.+)", "attribute", "name", 0.95, "Mi nombre es Íñigo", "Íñigo"),
    Phrase(r"(?:yo )?vivo en (?P<o>.+)", "fact", "lives_in", 0.8, "Vivo en Málaga", "Málaga"),
    Phrase(r"(?:yo )?trabajo como (?P<o>.+)", "fact", "works_as", 0.75, "Trabajo como enfermera", "enfermera"),
    Phrase(r"(?:yo )?soy alérgic[oa] a(?:l| los| las| la)? (?P<o>.+)", "attribute", "allergic_to", 0.95,
           "Soy alérgica a las nueces", "nueces"),
    Phrase(r"(?:a mí )?me (?:gustan?|encantan?) (?P<o>.+)", "preference", "likes", 0.5, "Me gusta el té", "el té"),
    Phrase(r"mi (?P<what>\w+) favorit[oa] es (?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "Mi color favorito es el azul", "el azul"),
    # French
    Phrase(r"je m'appelle (?P<o>.+)", "attribute", "name", 0.95, "Je m'appelle Zoé", "Zoé"),
    Phrase(r"(?:j'habite|je vis) (?:à|en|au|aux|dans) (?P<o>.+)", "fact", "lives_in", 0.8, "J'habite à Lyon", "Lyon"),
    Phrase(r"je travaille comme (?P<o>.+)", "fact", "works_as", 0.75, "Je travaille comme infirmier", "infirmier"),
    Phrase(r"je suis allergique (?:à la |à l'|aux? |à )(?P<o>.+)", "attribute", "allergic_to", 0.95,
           "Je suis allergique aux noix", "noix"),
    Phrase(r"j'(?:aime|adore) (?P<o>.+)", "preference", "likes", 0.5, "J'aime le thé", "le thé"),
    Phrase(r"m(?:on|a) (?P<what>\w+) préférée? est (?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "Ma couleur préférée est le bleu", "le bleu"),
    # German
    Phrase(r"(?:ich heiße|ich heisse|mein name ist) (?P<o>.+)", "attribute", "name", 0.95, "Ich heiße Jörg", "Jörg"),
    Phrase(r"ich (?:wohne|lebe) in (?P<o>.+)", "fact", "lives_in", 0.8, "Ich wohne in Köln", "Köln"),
    Phrase(r"ich arbeite als (?P<o>.+)", "fact", "works_as", 0.75, "Ich arbeite als Bäcker", "Bäcker"),
    Phrase(r"ich bin allergisch (?:gegen|auf) (?P<o>.+)", "attribute", "allergic_to", 0.95,
           "Ich bin allergisch gegen Nüsse", "Nüsse"),
    Phrase(r"ich (?:mag|liebe) (?P<o>.+)", "preference", "likes", 0.5, "Ich mag Tee", "Tee"),
    Phrase(r"meine? lieblings(?P<what>\w+) ist (?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "Meine Lieblingsfarbe ist Blau", "Blau"),
    # Italian
    Phrase(r"mi chiamo (?P<o>.+)", "attribute", "name", 0.95, "Mi chiamo Niccolò", "Niccolò"),
    Phrase(r"(?:io )?(?:vivo|abito) (?:a|in) (?P<o>.+)", "fact", "lives_in", 0.8, "Abito a Forlì", "Forlì"),
    Phrase(r"lavoro come (?P<o>.+)", "fact", "works_as", 0.75, "Lavoro come cuoco", "cuoco"),
    Phrase(r"sono allergic[oa] (?:alle |ai |agli |alla |all'|al |a )(?P<o>.+)", "attribute", "allergic_to", 0.95,
           "Sono allergico alle noci", "noci"),
    Phrase(r"mi (?:piace|piacciono) (?P<o>.+)", "preference", "likes", 0.5, "Mi piace il tè", "il tè"),
    Phrase(r"(?:il mio|la mia) (?P<what>\w+) preferit[oa] è (?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "Il mio colore preferito è il blu", "il blu"),
    # Portuguese
    Phrase(r"(?:(?:eu )?me chamo|(?:o )?meu nome é) (?P<o>.+)", "attribute", "name", 0.95, "Meu nome é João", "João"),
    Phrase(r"(?:eu )?(?:moro|vivo) (?:em|no|na) (?P<o>.+)", "fact", "lives_in", 0.8, "Moro em São Luís", "São Luís"),
    Phrase(r"(?:eu )?trabalho como (?P<o>.+)", "fact", "works_as", 0.75, "Trabalho como médica", "médica"),
    Phrase(r"(?:eu )?sou alérgic[oa] (?:a|ao|à|aos|às) (?P<o>.+)", "attribute", "allergic_to", 0.95,
           "Sou alérgico a camarão", "camarão"),
    Phrase(r"(?:eu )?gosto (?:muito )?d[eoa]s? (?P<o>.+)", "preference", "likes", 0.5, "Gosto de chá", "chá"),
    Phrase(r"(?:a minha|o meu|minha|meu) (?P<what>\w+) (?:favorit|preferid)[oa] é (?P<o>.+)", "preference", "favorite_{what}",
           0.65, "Minha cor favorita é azul", "azul"),
    # Russian
    Phrase(r"меня зовут (?P<o>.+)", "attribute", "name", 0.95, "Меня зовут Анна", "Анна"),
    Phrase(r"я живу во? (?P<o>.+)", "fact", "lives_in", 0.8, "Я живу в Москве", "Москве"),
    Phrase(r"я работаю (?!в |на |с |над |из |не |и )(?P<o>\w+)$", "fact", "works_as", 0.75, "Я работаю врачом", "врачом"),
    Phrase(r"у меня аллергия на (?P<o>.+)", "attribute", "allergic_to", 0.95, "У меня аллергия на орехи", "орехи"),
    Phrase(r"я (?:очень )?(?:люблю|обожаю) (?P<o>.+)", "preference", "likes", 0.5, "Я люблю чай", "чай"),
    Phrase(r"мо[йяё] любим(?:ый|ая|ое) (?P<what>\w+)(?: ?[—–-] ?| это )(?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "Мой любимый цвет — синий", "синий"),
    # Chinese
    Phrase(r"我(?:叫|的名字(?:是|叫))(?P<o>\w{1,8})$", "attribute", "name", 0.95, "我叫王小明", "王小明"),
    Phrase(r"我(?:现在|現在|目前)?住在(?P<o>.+)", "fact", "lives_in", 0.8, "我住在北京", "北京"),
    Phrase(r"我是(?:一名|一个|一個|一位|个|個)(?P<o>.+)", "fact", "works_as", 0.7, "我是一名护士", "护士"),
    Phrase(r"我对(?P<o>.{1,20}?)过敏", "attribute", "allergic_to", 0.95, "我对花生过敏", "花生"),
    Phrase(r"我最(?:喜欢|喜歡)的(?P<what>\w{1,8}?)是(?P<o>.+)", "preference", "favorite_{what}", 0.65,
           "我最喜欢的颜色是蓝色", "蓝色"),
    Phrase(r"我(?:很|非常|特别|也)?(?:喜欢|喜歡|爱|愛)(?P<o>.+)", "preference", "likes", 0.5, "我喜欢喝茶", "喝茶"),
    # Japanese
    Phrase(r"(?:私|僕|俺)の名前は(?P<o>\w{1,12}?)です", "attribute", "name", 0.95, "私の名前は花子です", "花子"),
    Phrase(r"(?:(?:私|僕|俺)は)?(?P<o>\w{1,20}?)に住んで(?:います|いる|ます|る)$", "fact", "lives_in", 0.8,
           "私は大阪に住んでいます", "大阪"),
    Phrase(r"(?:(?:私|僕|俺)は)?(?P<o>\w{1,20}?)として働いて(?:います|いる)$", "fact", "works_as", 0.75,
           "私は看護師として働いています", "看護師"),
    Phrase(r"(?:私|僕|俺)は(?P<o>\w{1,20}?)(?:に)?アレルギー(?:です|があります)$", "attribute", "allergic_to", 0.95,
           "私はそばアレルギーです", "そば"),
    Phrase(r"(?:私|僕|俺)の(?:一番)?好きな(?P<what>\w{1,8}?)は(?P<o>\w{1,20}?)です$", "preference", "favorite_{what}", 0.65,
           "私の好きな色は青です", "青"),
    Phrase(r"(?:(?:私|僕|俺)は)?(?P<o>\w{1,20}?)が(?:大)?好きです$", "preference", "likes", 0.5, "私は寿司が好きです", "寿司"),
)  # fmt: skip
