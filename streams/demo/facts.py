"""Things that were said once: each stands in exactly one mail, and the questions beside them can be asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """``sentence`` is written into one mail about ``topic`` and contains ``answer``; no other mail contains either."""

    topic: str
    question: str
    sentence: str
    answer: str


FACTS: tuple[Fact, ...] = (
    Fact(
        "kitchen",
        "What colour is the pantry door painted in?",
        "For the touch-up pot: the pantry door is painted in the colour Gravel Moth 117.",
        "Gravel Moth 117",
    ),
    Fact(
        "kitchen",
        "What is the guarantee number of the bread oven?",
        "The guarantee number of the bread oven is BX-20-7741, valid for five years.",
        "BX-20-7741",
    ),
    Fact(
        "kitchen",
        "Where is the stopcock for the cold water hidden?",
        "The stopcock for the cold water is hidden behind the third plinth board from the left.",
        "third plinth board",
    ),
    Fact(
        "kitchen",
        "Which company serviced the boiler?",
        "The boiler was serviced by Hearthwick Heating, the sticker is inside the flap.",
        "Hearthwick Heating",
    ),
    Fact(
        "harbour",
        "On which frequency does the gateway transmit its beacon?",
        "For the licence form: the gateway transmits its beacon on a frequency of 868.3 megahertz.",
        "868.3 megahertz",
    ),
    Fact(
        "harbour",
        "Who keeps the only padlock key of the pilot steps?",
        "The only padlock key of the pilot steps is kept by Maurice Notional at the ice works.",
        "Maurice Notional",
    ),
    Fact(
        "harbour",
        "What is the serial number of the spare Kelpie board?",
        "I wrote down the serial number of the spare Kelpie board, it is KB-0932-F.",
        "KB-0932-F",
    ),
    Fact(
        "harbour",
        "How deep is the mud under the dredger berth?",
        "The diver says that the mud under the dredger berth is 340 cm deep.",
        "340 cm deep",
    ),
    Fact(
        "everyday",
        "What is the chip number of the cat?",
        "In case she strays: the chip number of the cat is 900-0883-23.",
        "900-0883-23",
    ),
    Fact(
        "everyday",
        "Which shoe size do the twins wear?",
        "The twins now wear shoe size 34, both of them, so one parcel will do.",
        "shoe size 34",
    ),
    Fact(
        "everyday",
        "Which blood group does Grandmother have?",
        "The hospital card says that Grandmother has blood group AB negative.",
        "AB negative",
    ),
    Fact(
        "choir",
        "When and where is the weekly rehearsal of the choir?",
        "New from this month: the weekly rehearsal of the choir is on Thursday 19:30 in the Old Granary.",
        "Thursday 19:30 in the Old Granary",
    ),
    Fact(
        "choir",
        "Who is allergic to walnuts?",
        "For the caterers, Barnaby Unlikely in the second row is allergic to walnuts.",
        "Barnaby Unlikely",
    ),
    Fact(
        "choir",
        "At which bay does the tour bus wait at the ferry terminal?",
        "At the ferry terminal the tour bus will wait at bay 14C, behind the duty-free kiosk.",
        "bay 14C",
    ),
    Fact("boat", "What is the door code of the boathouse?", "As of today the door code of the boathouse is 4417.", "4417"),
    Fact(
        "boat",
        "How many litres of diesel does the tank hold?",
        "We drained it completely: the diesel tank holds 87 litres, not a hundred.",
        "87 litres",
    ),
    Fact(
        "boat",
        "What is the registered sail number of the Wandering Tern?",
        "The registered sail number of the Wandering Tern is GBX 2093, it must be sewn on by May.",
        "GBX 2093",
    ),
    Fact(
        "history",
        "What is the shelf mark of the smuggler's diary?",
        "The shelf mark of the smuggler's diary is MS Tidewater 61/b, ask for it by that.",
        "MS Tidewater 61/b",
    ),
    Fact(
        "history",
        "How many copies of the book will be printed?",
        "The contract is signed: 650 copies of the book will be printed, a hundred of them bound in cloth.",
        "650 copies",
    ),
    Fact(
        "history",
        "Who drew the frontispiece?",
        "It turns out that the frontispiece was drawn by Clementine Hoax, who lodged at the inn.",
        "Clementine Hoax",
    ),
    Fact(
        "weather",
        "What was the strongest gust ever recorded at the lighthouse?",
        "The strongest gust ever recorded at the lighthouse was 91 knots, in the night of the regatta.",
        "91 knots, in the night",
    ),
    Fact(
        "weather",
        "What is our observer station identifier?",
        "They accepted us, our observer station identifier is TW-5508.",
        "TW-5508",
    ),
    Fact(
        "weather",
        "How tall is the lattice tower beside the sheepfold?",
        "I asked the surveyor, the lattice tower beside the sheepfold is 23.4 metres tall.",
        "23.4 metres tall",
    ),
    Fact(
        "allotment",
        "What is the yearly rent of the allotment?",
        "The yearly rent of the allotment goes up to 64 pounds 50, payable in advance.",
        "64 pounds 50",
    ),
    Fact(
        "allotment",
        "Which apple variety grows on the espalier?",
        "The old pomologist is certain that the apple variety on the espalier is Duchess of Nowhere.",
        "Duchess of Nowhere",
    ),
    Fact(
        "allotment",
        "When does the tool library open?",
        "Please note that the tool library opens every second Tuesday at a quarter past five.",
        "every second Tuesday",
    ),
    Fact(
        "observatory",
        "What is the focal length of the donated refractor?",
        "The focal length of the donated refractor is 1,740 millimetres, measured on the bench.",
        "1,740 millimetres",
    ),
    Fact(
        "observatory",
        "Who sponsors the new rotating roof?",
        "The new rotating roof will be sponsored by Makebelieve Optics, plaque included.",
        "Makebelieve Optics",
    ),
    Fact(
        "observatory",
        "What is the emergency extension of the night porter?",
        "If anyone is locked in, the emergency extension of the night porter is 2266.",
        "2266",
    ),
)
