"""The words that the patterns of prose know, by what they do in a sentence."""

from __future__ import annotations

from typing import Final


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


ARTICLES: Final = word_set("a an any are be been has have is our the was were your")
"""Left out of what is counted."""

SPEAKERS: Final = word_set(
    "a an are be has have i is must need needed needs of our require requires should team the there to we "
    "will would you"
)
"""Said before the verb."""

GENERIC: Final = word_set(
    "achieve achieved acquire add aim attain attract bring capture collect drive earn gain generate get gets "
    "got have hit land make observe obtain produce reach reached reaches receive received record secure see "
    "target win"
)
"""Verbs that say only that there is something: get 5 replies are 5 replies."""

ATTAIN: Final = word_set("achieve achieved achieves attain attains get gets hit hits meet meets reach reached reaches")
"""Reaching a number."""

EXCEED: Final = word_set(
    "beat beats cross crosses exceed exceeded exceeding exceeds pass passes surpass surpassed surpasses tops"
)
"""Going beyond it."""

RISE: Final = word_set(
    "climb climbed climbs creep creeps grew grow grows improve improves increase increases jump jumps rise rises rose "
    "spike spikes"
)
"""Rising, to a number."""

FALL: Final = word_set(
    "decline declined declines decrease decreases dip dips drop dropped drops fall falls fell plunge plunges sink "
    "sinks slide slides slip slips"
)
"""Falling, to a number."""

LINKS: Final = word_set(
    "a an are at averages be being can come comes get gets go goes hovers in is level lies must of reading "
    "remain remained remains shall should sits stay stayed stays still stuck the to was were will"
)
"""Between a subject and its number; they give no direction."""

STAY: Final = word_set("keep keeping maintain remain remained remains stay stayed stays")
"""What is to be so all the time."""

QUALITIES: Final = word_set("excessive few high insufficient low many poor too weak")
"""Before a declared metric, these say which side of the number that follows is meant."""

KEEP: Final = word_set("bring deliver drive ensure have hold keep keeping maintain push secure see sustain target")
"""Before a subject; they give no direction."""

UP: Final = word_set("boost grow improve increase lift raise")
"""Before a subject: ... to 60%."""

DOWN: Final = word_set("cap cut decrease limit lower minimise minimize reduce shrink")
"""Before a subject: ... to 5%."""

TAILS: Final = word_set("across at from on through to via")
"""Behind a declared metric these begin what does not change it."""

MODALS: Final = word_set("must shall should")
"""What somebody wants."""

MONEY: Final = word_set(
    "acv arr bookings budget cost costs donations earnings expenses fees funding gmv income mrr pipeline profit "
    "revenue sales savings spend tcv value"
)
"""What money can be an amount of."""

PURPOSES: Final = word_set(
    "assess call confirm consider continue demonstrate ensure establish justify learn measure proceed prove "
    "qualify show support test validate verify"
)
"""Behind ``to``: why it is wanted."""

LIMITING: Final = word_set(
    "active april august average baseline but clear compared consecutive control daily day december each "
    "every except excluding february for friday good great happy high if interested january july june last "
    "march monday month monthly november october only paying per previous prior q1 q2 q3 q4 qualified quarter "
    "real relative row saturday september strong sunday than that thursday today tomorrow tuesday unless "
    "versus very vs wednesday week weekly when where which while who whom whose with without year yesterday"
)
"""In a tail these change what is counted."""

WISHES: Final = word_set(
    "aim boost cap cut decrease ensure goal grow improve increase keep lift limit lower maintain minimise "
    "minimize must raise reduce shall should shrink sustain target"
)
"""What is wanted, not what is."""

UNCOUNTED: Final = word_set(
    "a about across after again all almost among an and another any anyone anything approximately are around "
    "as at average be because been before being better between big both but by can clear clearly concerns "
    "consecutive could current daily day days decrease despite did do does doubts drop during each "
    "enthusiastic every everybody everyone everything excited false faster few fewer final first for from "
    "genuine good great growth had happy has have high higher hopefully hourly hours how if improvement in "
    "increase interested interesting into is issues it its just last least less lift like low lower major "
    "many may maybe meaningful might minor month monthly months more most much must nearly next no nobody not "
    "nothing obvious of on ones only or other others our own people per perhaps point points previous prior "
    "problems quality real really reduction roughly row same second serious several should significant signs "
    "since small solid some somebody someone something strong such than that the their them these they things "
    "this those through time times to top true unless until very via visible was we week weekly weeks were "
    "what when where which while who whose why will with within without worse would year yearly years yes"
)
"""No name of an undeclared metric has these: they make a phrase that nobody counts."""

IN_SUBJECTS: Final = word_set("average daily first growth monthly of per time to weekly")
"""Of these, a measure may have some: time to first reply."""

LIMITS: Final = word_set(
    "and average avg but compared consecutive consistently counting daily each every except excluding if "
    "including mean median minus monthly net not only or per relative sustained than unique unless versus vs "
    "weekly when while without"
)
"""An aside that begins with these changes the criterion."""

REASONS: Final = word_set(
    "as because confirming confirms demonstrates demonstrating due eg i.e ie implies implying indicates "
    "indicating meaning means proves proving reflecting showing shows signaling signalling signals since so "
    "suggesting suggests validates validating which"
)
"""These begin an explanation."""

VAGUE: Final = word_set("couple double dozens few half handful many most multiple numerous several some triple")
"""Amounts that are no number."""
