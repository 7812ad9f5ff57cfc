"""Questions that the manual does not answer, of the three kinds that customers ask.

Off topic (small talk, other products), unanswerable (near the product, but no matter for its manual: prices, dates,
people), and false premise (a feature that does not exist). A question is kept only if the words that make it foreign
occur nowhere in the manual.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

OFF_TOPIC = (
    "what's the weather like in {city} tomorrow?", "tell me a joke", "who won the football match yesterday?",
    "write me a poem about the sea", "are you a real person?", "what is the capital of {country}?",
    "how do I cook {dish}?", "my car makes a strange noise, what should I do?", "what time is it in {city}?",
    "can you do my maths homework?", "what is 17 times 23?", "recommend a good {leisure}", "how old are you?",
    "do you love me?", "how do I lose five kilos?", "what should I give my mother for her birthday?",
    "who is the president of {country}?", "is there life on Mars?", "translate 'good morning' into {language}",
    "how do I get a visa for {country}?", "my {device} does not turn on any more", "which {leisure} is the best?",
    "what's your favourite colour?", "how far is it from {city} to the moon?", "sing me a song",
    "book a table for two in {city}", "how do I train my dog?", "what are the symptoms of the flu?",
    "how do I unclog my {device}?", "what does the stock market do today?", "plan a holiday in {country}",
    "how many calories has {dish}?", "I need a recipe for {dish}", "how do I grow tomatoes?",
    "which shoes go with a blue suit?", "who wrote Hamlet?", "how do I file my income tax?",
    "my {device} shows an error code, how do I fix it?", "what films are on in {city}?",
)  # fmt: skip
_FILL = {
    "city": ("Zurich", "Lagos", "Osaka", "Lima", "Oslo", "Toronto", "Perth", "Cairo"),
    "country": ("Portugal", "Kenya", "Peru", "Norway", "Vietnam", "Canada"),
    "dish": ("lasagna", "pancakes", "ramen", "a cheesecake", "falafel"),
    "leisure": ("restaurant", "novel", "hiking trail", "guitar teacher", "dentist", "football team"),
    "language": ("Finnish", "Swahili", "Korean", "Greek"),
    "device": ("dishwasher", "printer", "coffee machine", "washing machine", "lawn mower", "kitchen sink"),
}

# (the question, the words of which none may occur in the manual)
UNANSWERABLE = (
    ("How much does {thing} cost per month in euros?", "price prices cost costs euro"),
    ("what is the price for 50 seats?", "price prices seats"),
    ("Is there a discount for students?", "discount student students"),
    ("do charities get a discount?", "discount charity nonprofit"),
    ("who is the CEO of the company?", "ceo"),
    ("How many employees do you have?", "employees headcount"),
    ("Where is your head office?", "headquarters office"),
    ("what is the phone number of the sales team?", "phone sales"),
    ("When will the next big version be released, which date?", "roadmap"),
    ("when did the company get founded and by whom", "founded founders"),
    ("Which investors are behind you?", "investors funding"),
    ("How many customers use {thing}?", "customers"),
    ("Are you cheaper than your competitors?", "cheaper competitors"),
    ("Can I get a refund if I don't like it?", "refund refunds"),
    ("what uptime do you guarantee in the contract, in percent", "uptime sla"),
    ("which cloud region is my data stored in?", "region regions"),
    ("Do you have job openings for developers?", "job jobs hiring"),
    ("can you recommend a consultant who sets {thing} up for us?", "consultant consultants freelancer"),
    ("is there a certification exam I can take?", "exam certification"),
    ("how many support agents work at night?", "agents"),
    ("what did {thing} look like five years ago?", "history"),
    ("who designed {thing} and why?", "designer designers"),
    ("How many milliseconds does {thing} take on average?", "milliseconds latency"),
    ("Which programming language is {thing} written in?", "programming"),
    ("can I pay by invoice or only with a card?", "invoice invoices"),
    ("Do you sell gift cards?", "gift"),
    ("is there a trial of 90 days for {thing}?", "trial"),
    ("what is planned for {thing} next year?", "roadmap planned"),
    ("which insurance covers damages caused by {thing}?", "insurance"),
    ("how much electricity does {thing} use?", "electricity"),
)

# Features of software of other kinds, each with the words that must not occur in the manual.
FOREIGN_FEATURES = (
    ("keyframe timeline", "keyframe"), ("fax gateway", "fax"), ("barcode scanner", "barcode"),
    ("payroll module", "payroll"), ("3D printer", "3d printer"), ("crypto wallet", "crypto wallet"),
    ("VR headset mode", "vr headset"), ("pivot table", "pivot"), ("Gantt chart", "gantt"),
    ("mail merge", "mail-merge"), ("fingerprint login", "fingerprint"), ("karaoke mode", "karaoke"),
    ("podcast recorder", "podcast"), ("parental control", "parental"), ("speech synthesis", "synthesis speech"),
    ("handwriting recognition", "handwriting"), ("face recognition", "face recognition"), ("mind map generator", "mind"),
    ("chess board", "chess"), ("smartwatch app", "smartwatch"), ("loyalty points program", "loyalty"),
    ("warehouse stock list", "warehouse"), ("expense report", "expense"), ("GPS tracker", "gps"),
    ("drum machine", "drum"), ("green screen", "greenscreen"), ("subtitle editor", "subtitle subtitles"),
    ("holiday planner", "holiday"), ("time clock for employees", "clock"), ("coupon codes", "coupon"),
    ("satellite map", "satellite"), ("blockchain ledger", "blockchain"), ("screen saver", "saver"),
    ("floppy disk import", "floppy"), ("Photoshop plug-in", "photoshop"), ("AutoCAD converter", "autocad"),
    ("WhatsApp bridge", "whatsapp"), ("Alexa skill", "alexa"), ("TikTok export", "tiktok"),
    ("PlayStation version", "playstation"), ("Fortran macro", "fortran macro"), ("SAP connector", "sap"),
    ("Minecraft import", "minecraft"), ("Lotus Notes migration", "lotus"), ("telegraph mode", "telegraph"),
    ("weather widget", "weather"), ("horoscope of the day", "horoscope"), ("dating profile", "dating"),
    ("heart rate monitor", "heart"), ("thermostat control", "thermostat"), ("recipe book", "recipe"),
    ("tax return form", "tax"), ("voice cloning", "cloning voice"), ("hologram view", "hologram"),
    ("typewriter sound", "typewriter"), ("background music", "music"), ("star rating of users", "rating"),
    ("family tree", "family"), ("metronome", "metronome"), ("sheet music view", "music"),
)  # fmt: skip
FALSE_PREMISES = (
    "How do I use the {feature}?", "In which menu is the {feature}?", "where do I switch on the {feature}?",
    "the {feature} does not start, what can I do?", "How can I share the {feature} with my team?",
    "Why is my {feature} greyed out?", "how do I turn off the {feature}", "what are the limits of the {feature}?",
    "{feature} settings", "I updated and now the {feature} is gone. How do I get it back?",
    "which role do I need for the {feature}?", "how do I connect {thing} to the {feature}?",
    "Can I {task} with the {feature}?", "does {thing} work with the {feature}?",
)  # fmt: skip


def outside_questions(manual: str, phrases: Sequence[str], *, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return up to `count` (kind, question), a fifth off topic, a third unanswerable, the rest false premises.

    `phrases` are tasks and things of the manual; questions borrow them, to sound like the product's own.
    """
    vocabulary = set(re.findall(r"\w+", manual.lower()))
    kinds = {
        "off-topic": [(text, "") for text in OFF_TOPIC],
        "unanswerable": [pair for pair in UNANSWERABLE if not _occurs(pair[1], vocabulary)],
        "false-premise": [
            (form.replace("{feature}", name), "")
            for form in FALSE_PREMISES
            for name, words in FOREIGN_FEATURES
            if not _occurs(words, vocabulary)
        ],
    }
    wanted = {"off-topic": count // 5, "unanswerable": count // 3}
    wanted["false-premise"] = count - sum(wanted.values())
    made: list[tuple[str, str]] = []
    for kind, templates in kinds.items():
        seen: set[str] = set()
        for _ in range(6 * wanted[kind]):
            if len(seen) >= wanted[kind] or not templates:
                break
            seen.add(_filled(rng.choice(templates)[0], phrases, rng))
        made.extend((kind, question) for question in sorted(seen))
    rng.shuffle(made)
    return made


def _occurs(words: str, vocabulary: set[str]) -> bool:
    return any(word in vocabulary for word in words.split())


def _filled(template: str, phrases: Sequence[str], rng: random.Random) -> str:
    text = template
    for name, values in _FILL.items():
        text = text.replace("{" + name + "}", rng.choice(values))
    thing = rng.choice(phrases) if phrases else "it"
    return text.replace("{thing}", f"“{thing}”" if len(thing.split()) > 3 else thing).replace("{task}", thing)
