"""Short opinions of our own making, with their labels, for what reviews teach too seldom.

People type one sentence, and whole reviews hardly show what "not", "never" and "anything but" do
to the next word, nor that a bleak, brutal film can be praised. Half of the sentences are put
together from a construction and words of known polarity; the constructions turn the polarity round
or keep it. The other half are those of `opinions.tsv`: a label and a sentence in a line, with
alternatives in brackets.

To add a construction, add a line to `CONSTRUCTIONS`; to add a sentence, a line to `opinions.tsv`.
"""

import random
import re
from functools import cache
from pathlib import Path

OPINIONS = Path(__file__).with_name("opinions.tsv")
ALTERNATIVES = re.compile(r"\[([^]]*)\]")
LABELS = ("Negative", "Positive")  # the only labels that the sentences are made for

THINGS = """the film|the movie|this film|this movie|it|the story|the plot|the script|the acting
the cast|the dialogue|the direction|the music|the score|the ending|the pacing|the humour|the humor
the first half|the second half|the whole thing|the camera work|the lead actor|the lead actress
the premise|the show|the series|the sequel|the remake|the production|the idea
the concept|the action|the romance|the documentary|the comedy|the drama"""
ADJECTIVES = (
    """bad|awful|terrible|boring|dull|weak|poor|horrible|dreadful|stupid|silly|lame|tedious|bland
lousy|pathetic|ridiculous|annoying|disappointing|forgettable|predictable|shallow|clumsy|sloppy
amateurish|unwatchable|unfunny|painful|pointless|mediocre|atrocious|abysmal|tiresome|lifeless
incoherent|confusing|overrated|laughable|slow|uninspired|cheap|contrived|wooden|stilted|preachy
derivative|bloated|soulless|muddled|tame|flat|corny|cheesy|dreary|insipid|infuriating|irritating
grating|half-baked|heavy-handed|long-winded|pretentious|repetitive|sluggish|stale|tacky|trite
underwhelming|unconvincing|unoriginal|vapid|tasteless|messy|mindless|hollow|empty""",
    """good|great|excellent|wonderful|fantastic|brilliant|superb|amazing|enjoyable|entertaining
funny|hilarious|clever|smart|moving|touching|gripping|thrilling|exciting|interesting|fascinating
charming|delightful|beautiful|stunning|memorable|original|powerful|believable|convincing|engaging
impressive|outstanding|perfect|fresh|witty|satisfying|compelling|lovely|terrific|inspired|sharp
subtle|honest|wise|tender|heartfelt|riveting|joyous|taut|luminous|absorbing|adorable|astonishing
captivating|dazzling|elegant|exquisite|flawless|genuine|graceful|imaginative|ingenious|intelligent
magical|magnificent|masterful|poignant|refreshing|sincere|spellbinding|uplifting|warm|enchanting""",
)
PREDICATES = (
    "a mess|a disaster|a disappointment|a failure|garbage|rubbish|a joke|a bore|a letdown|trash",
    "worth seeing|worth watching|a joy|a gem|a treat|a classic|a masterpiece|a success|a delight",
)
NOUNS = (
    """flaws|dull moments|weak spots|boredom|clichés|mistakes|plot holes|bad acting|false notes""",
    """charm|humour|tension|suspense|wit|heart|depth|originality|imagination|chemistry|soul|talent
energy|magic|warmth|excitement|good jokes|redeeming features|redeeming qualities|merit""",
)
VERBS = (
    "hated|disliked|regretted|despised|loathed|suffered through|was bored by|was annoyed by",
    "loved|enjoyed|adored|liked|admired|was moved by|was thrilled by|was impressed by",
)
BARE_VERBS = (
    "regret watching|dislike|hate|mind|get tired of|get bored by",
    "enjoy|like|love|care for|recommend|believe|want to see again",
)
DARK = """sad|dark|bleak|brutal|violent|disturbing|grim|gruesome|heartbreaking|tragic|depressing
bloody|ugly|painful|uncomfortable|slow|strange|weird|shocking|angry|cruel|cold|silent|hopeless"""
NEUTRAL = """expensive|colourful|loud|long|short|glossy|ambitious|famous|pretty|stylish|big|quiet"""
NOT = "not|never|hardly|anything but|far from|by no means|not at all|not really|not even|in no way"
IS_NOT = "isn't|wasn't|is not|was not|is never|was never|is hardly|was hardly"
VERY = "|really|very|quite|so|truly|absolutely|simply|just|pretty|completely|utterly|rather"
END = ".|.|.|!|"

# Each: polarity of the words that are filled in, label, and sentence; 1 stands for positive. {X}
# and {Q} are of the other polarity. Each is also made with both polarities turned round, but for
# those that end in "|", which make no sense so.
CONSTRUCTIONS = (
    (1, 1, "{T} is {very} {A}"),
    (1, 1, "{T} was {very} {A}"),
    (1, 1, "{very} {A}"),
    (1, 1, "{T} is {P}"),
    (1, 1, "what can I say, {T} is {P}"),
    (1, 0, "{T} {isnt} {P}"),
    (1, 0, "{T} is {not} {P}"),
    (1, 0, "{T} is {A}, but not {P}|"),
    (1, 0, "{T} may be {A}, but it is {Q}"),
    (1, 0, "{T} is {Q}, however {A} it looks"),
    (1, 1, "{A} and {B}"),
    (1, 1, "what a film, {very} {A}"),
    (1, 1, "I thought {T} was {A}"),
    (1, 1, "I {V} {T}"),
    (1, 1, "I {V} every minute of {T}"),
    (1, 1, "my friends and I {V} {T}"),
    (1, 1, "{T} is {A}, {B} and {C}"),
    (1, 0, "{T} {isnt} {very} {A}"),
    (1, 0, "{T} {isnt} {A}"),
    (1, 0, "{T} {isnt} {A} at all"),
    (1, 0, "simply {not} {A}"),
    (1, 0, "{not} {A} at all"),
    (1, 0, "{T} is {not} {A}"),
    (1, 0, "there is nothing {A} about {T}"),
    (1, 0, "I found nothing {A} in {T}"),
    (1, 0, "{T} is neither {A} nor {B}"),
    (1, 0, "I can't say that {T} is {A}"),
    (1, 0, "I wouldn't call {T} {A}"),
    (1, 0, "nobody could call {T} {A}"),
    (1, 0, "{T} is not {A}, and it is not {B} either"),
    (1, 0, "who says that {T} is {A}? It {isnt}"),
    (1, 0, "{T} never gets {A}"),
    (1, 0, "{T} never becomes {A}"),
    (1, 0, "at no point is {T} {A}"),
    (1, 0, "not once is {T} {A}"),
    (1, 0, "{T} is not as {A} as I had hoped|"),
    (0, 1, "{T} is not as {A} as I had feared|"),
    (1, 0, "{T} is not half as {A} as they say"),
    (1, 0, "not {A}, just {X}"),
    (1, 0, "{T} is not {A} but {X}"),
    (1, 0, "I had heard that {T} was {A}, but it {isnt}"),
    (1, 0, "I expected something {A} and got something {X}"),
    (1, 0, "{T} may look {A}, but it is {X}"),
    (1, 0, "{T} starts {A} but ends {X}"),
    (1, 0, "despite being {A}, {T} is in the end {X}"),
    (1, 0, "some call {T} {A}; I found it {X}"),
    (1, 0, "I {dont} {W} {T}"),
    (1, 0, "you won't {W} {T}"),
    (1, 1, "you will {W} {T}"),
    (1, 1, "I still {W} {T}"),
    (1, 0, "{T} has no {N}"),
    (1, 0, "{T} is without {N}"),
    (1, 0, "no {N} whatsoever"),
    (1, 0, "there is not a trace of {N} in {T}"),
    (1, 1, "{T} is full of {N}"),
    (1, 1, "so much {N} in one film"),
    (1, 1, "it is {not} {X}, it is {A}"),
    (1, 1, "I was {very} surprised how {A} {T} is"),
    (1, 1, "never have I seen anything so {A}"),
    (1, 1, "I have never seen a film this {A}"),
    (1, 1, "{dark}, {dark} and {A}|"),
    (1, 1, "{dark}, but {very} {A}|"),
    (1, 1, "{T} is {dark}, and that is what makes it {A}|"),
    (1, 1, "it is {dark} and {dark}, and I {V} it|"),
    (0, 0, "{neutral} but {A}|"),
    (0, 0, "{T} is {neutral} and {neutral}, and yet {A}|"),
    (1, 1, "{T} is {X} in places, but I {V} it"),
    (1, 1, "it may be {X}, but I {V} it all the same"),
    (1, 1, "say what you will, {T} is {A}"),
    (1, 1, "nothing could make {T} less than {A}|"),
    (1, 1, "you cannot deny that {T} is {A}"),
    (1, 1, "it is hard not to find {T} {A}"),
    (1, 0, "it is hard to find {T} {A}"),
    (1, 0, "I tried to find {T} {A}, and failed|"),
    (1, 0, "{T} could have been {A}|"),
    (1, 0, "{T} should have been {A}, but it {isnt}|"),
    (1, 0, "{T} tries to be {A} and fails|"),
    (1, 0, "{T} thinks it is {A}|"),
    (1, 0, "if only {T} were {A}|"),
    (1, 1, "{T} is more {A} than {X}"),
    (1, 0, "{T} is less {A} than {X}"),
    (1, 1, "{T} is both {A} and {B}"),
    (1, 1, "{A}, {B} and {C}"),
    (1, 0, "neither {A} nor {B}"),
    (1, 1, "not only {A} but also {B}"),
    (1, 1, "far more {A} than I expected"),
    (1, 0, "far less {A} than I expected"),
    (1, 0, "I wanted it to be {A}, and it is {X}"),
    (1, 1, "I was afraid it would be {X}, and it is {A}"),
    (0, 0, "{T} is far too {A}|"),
    (0, 0, "{T} is too {A} for words|"),
    (1, 1, "without a doubt {A}"),
    (1, 1, "{T} could not be more {A}|"),
    (0, 0, "{T} could not be more {A}|"),
)


def make_phrase(draw: random.Random) -> tuple[str, int]:
    """Return a sentence and its label, 0 or 1."""
    if draw.random() < 0.5:
        label, text = draw.choice(read_opinions())
        text = ALTERNATIVES.sub(lambda found: draw.choice(found[1].split("|")), text)
        return _finish(text, draw), label
    own, label, form = draw.choice(CONSTRUCTIONS)
    if not form.endswith("|") and draw.random() < 0.5:
        own, label = 1 - own, 1 - label
    first, second, third = draw.sample(_WORDS["adjectives"][own], 3)
    text = form.rstrip("|").format(
        T=draw.choice(_WORDS["things"][0]),
        A=first,
        B=second,
        C=third,
        X=draw.choice(_WORDS["adjectives"][1 - own]),
        P=draw.choice(_WORDS["predicates"][own]),
        Q=draw.choice(_WORDS["predicates"][1 - own]),
        N=draw.choice(_WORDS["nouns"][own]),
        V=draw.choice(_WORDS["verbs"][own]),
        W=draw.choice(_WORDS["bare verbs"][own]),
        very=draw.choice(VERY.split("|")),
        isnt=draw.choice(IS_NOT.split("|")),
        dont=draw.choice(("don't", "didn't", "do not", "did not", "never did", "could not")),
        dark=draw.choice(_WORDS["dark"][0]),
        neutral=draw.choice(_WORDS["neutral"][0]),
        **{"not": draw.choice(NOT.split("|"))},
    )
    return _finish(text, draw), label


@cache
def read_opinions() -> list[tuple[int, str]]:
    """Return the labels, 0 or 1, and the sentences of `opinions.tsv`."""
    lines = OPINIONS.read_text(encoding="utf-8").splitlines()
    return [(LABELS.index(label), text) for label, text in (line.split("\t") for line in lines)]


def make_phrases(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Return sentences and their labels; the same for the same seed."""
    draw = random.Random(seed)
    made = [make_phrase(draw) for _ in range(count)]
    return [text for text, _ in made], [label for _, label in made]


def _finish(text: str, draw: random.Random) -> str:
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + draw.choice(END.split("|"))


def _split(*lists: str) -> list[list[str]]:
    return [[each for line in text.splitlines() for each in line.split("|")] for text in lists]


_WORDS = {
    "things": _split(THINGS),
    "adjectives": _split(*ADJECTIVES),
    "predicates": _split(*PREDICATES),
    "nouns": _split(*NOUNS),
    "verbs": _split(*VERBS),
    "bare verbs": _split(*BARE_VERBS),
    "dark": _split(DARK),
    "neutral": _split(NEUTRAL),
}
