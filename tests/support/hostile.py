"""Sentences to measure the list of hurtful words by, written before the list was tried on them: plain, veiled, and harmless
ones that use the same words."""

from __future__ import annotations

PLAIN = (
    "You are an idiot.",
    "You stupid bastard, answer me.",
    "What kind of moron are you?",
    "Go to hell.",
    "You're a pathetic little liar.",
    "Fuck you and your patch.",
    "You are worthless to this team.",
    "I will kill you.",
    "We're going to ruin you.",
    "You will regret this.",
    "I know where you live.",
    "Watch your back.",
    "Shut up, you imbecile!",
    "Only a complete idiot like you would write this.",
    "Drop dead.",
    "You people are scum.",
    "You piece of shit.",
    "Kill yourself.",
    "You ugly loser.",
    "I hope you die.",
)
VEILED = (
    "It would be a pity if something happened to your children.",
    "People like you should not be allowed to work.",
    "Accidents happen, you know.",
    "Nobody would miss you.",
    "Go back to where you came from.",
    "Even a monkey would have found that bug.",
    "Women cannot program, as you prove.",
    "Someone ought to teach you a lesson.",
    "Your mother must be ashamed.",
    "Keep talking and see what happens.",
)
HARMLESS = (
    "I feel like a real idiot.",
    "This bug is a bitch to reproduce.",
    "The killer feature will kill you with joy, some say.",
    "You will not regret buying it.",
    "checkpatch.pl will bitch about this.",
    "Kill the process yourself with kill -9.",
    "You could fool the test with this.",
    "Sorry, I am a moron.",
    "The child process is dead when you are finished with it.",
    "Mind the gap, and back up your files.",
)
