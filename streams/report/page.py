"""The page: one HTML file that needs no network and runs no script, from a story alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pipeline.ranges import ranges
from registry.gate import RuleOutcome, Ruling
from streams.report.drawing import Curve, curves, share
from streams.report.story import Example, Mail, Story
from streams.report.style import STYLE
from streams.report.tables import (
    GAINS,
    LOSS,
    REPLIES,
    SEARCH,
    TIMES,
    WRITTEN,
    benchmarks,
    figures,
    heat_map,
    selection,
    senders,
    table,
)

WORDS = 700
GIST = 180
OUTCOMES = {"promoted": "good", "rejected": "bad", "failed": "bad", "abstained": "open"}
COMPARED = {"champion": "champion", "base": "bare base"}
RULINGS = {"pass": "good", "fail": "bad", "open": "open"}
DATA = (
    *("mails", "train", "val", "test", "quarantine", "threads", "senders"),
    *("tokens", "median_tokens", "chunks", "excluded"),
)


def page(story: Story) -> str:
    """The whole document. All text of mail is escaped, and the page may load nothing."""
    title = f"Run {story.request.run_id} of {story.request.mailbox}"
    body = "".join(_section(*section) for section in _sections(story))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{_head(story, title)}{body}{_foot(story)}</main></body></html>\n"
    )


def _sections(story: Story) -> Iterator[tuple[str, str, str]]:
    """Title, content (none, and the section is left out) and what a reader must know."""
    yield "Verdict", _verdict(story), ""
    yield "Loss while training", _losses(story), "Nats per token, lower is better. Dots are checkpoints on val."
    yield (
        "Forgetting",
        heat_map(story.heat, story) if story.heat else "",
        "Loss on val of each adapter of the lineage (rows) by window (columns), nats per token. The stronger the "
        "colour, the further above the best of its column. † marks windows that this run trained as new. A point: not "
        "measured.",
    )
    yield (
        "Held-out mail",
        figures(story, LOSS, "Chunks of val and test"),
        "Bars are 95 % intervals, clustered by thread. * rests on few threads.",
    )
    yield (
        "Does found mail help the model?",
        figures(story, GAINS, "Nats per token saved: above 0 is better")
        + figures(story, REPLIES, "Loss of the replies, nats per token"),
        "Real replies, foretold word by word after mail that arrived before them. A search for the subject found the mail "
        "given; random mail is the control, and the mail that is answered the best that a search could find.",
    )
    yield (
        "Replies as written",
        figures(story, WRITTEN, "Against the real ones, given found mail") + figures(story, TIMES, "Seconds"),
        "Greedy, so that a repeat is the same. Repetition is the share of word triples said before.",
    )
    yield (
        "Search",
        figures(story, SEARCH, "BM25, asked with a reply's subject and first lines"),
        "How often it finds the mail that a reply answers. It needs no model and is the same for every adapter.",
    )
    yield (
        "Beside the mail",
        benchmarks(story.results.get("benchmarks", {})),
        "Tasks that have nothing to do with mail, of this run and of what it challenges, on the same items. A point is one "
        "question in a hundred, or a hundredth of a bit per byte; below 0 is a gain.",
    )
    yield "Why this checkpoint", _selection(story), ""
    yield (
        "Rehearsal by sender",
        senders(story.rehearsed) if story.rehearsed else "",
        "Of what earlier runs learned: what this run rehearsed, and what any run of the lineage did.",
    )
    yield "The mail of its windows", _data(story), ""
    yield (
        "Quality tiers",
        _tiers(story) if story.tiers else "",
        "What the run took of each, and what replay.tier_caps and replay.tier_weights left out.",
    )
    yield "Where the time went", _time(story), ""
    yield (
        "Examples",
        _examples(story),
        "Real replies of val, none of them trained on, by nats per token given found mail. This is text of your mail.",
    )


def _section(title: str, body: str, note: str) -> str:
    """Empty where there is nothing to show."""
    said = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>" if body else ""


def _head(story: Story, title: str) -> str:
    request, result = story.request, story.result
    outcome = story.decision.status if story.decision else "no verdict yet"
    windows = ranges(request.new_windows)
    parent = f"continues <code>{request.parent.adapter_id}</code>" if request.parent else "from the bare base"
    tiles = "".join(
        f'<div class="tile"><span class="soft">{name}</span><b>{value}</b>{note}</div>'
        for name, value, note in _tiles(story)
    )
    return (
        f'<h1>{escape(title)} <span class="badge {OUTCOMES.get(outcome, "open")}">{escape(outcome)}</span></h1>'
        f'<p class="soft">Adapter <code>{request.adapter_id}</code>, {parent}. New windows: {windows}. '
        f"{result.finished_at:%Y-%m-%d %H:%M} UTC, {sum(result.seconds.values()):,.0f} s.</p>"
        f'<div class="tiles">{tiles}</div>'
    )


def _tiles(story: Story) -> list[tuple[str, str, str]]:
    summary = story.results.get("summary", [])
    own: Mapping[str, Any] = next((row for row in summary if row["chosen"]), {})
    others = [(name, row) for role, name in COMPARED.items() for row in summary if row["role"] == role]
    k = story.results.get("k", "k")
    found = []
    for key, name, form in (
        ("val_perplexity", "Perplexity, val", "{:,.1f}"),
        ("test_perplexity", "Perplexity, test", "{:,.1f}"),
        ("rag_gain_at_k", f"Gain from found mail @ {k}", "{:+.3f}"),
        ("rag_accuracy_at_k", f"Written replies, ROUGE-L @ {k}", "{:.3f}"),
        ("retrieval_recall_at_k", "Search, recall @ 5", "{:.2f}"),
    ):
        if key in own:
            notes = [f"{who} {form.format(row[key]['value'])}" for who, row in others if key in row]
            if key.startswith("retrieval"):
                notes = ["the same for every adapter"]
            if own[key]["few"]:
                notes.append(f"few threads, n = {own[key]['n']:,}")
            found.append((name, form.format(own[key]["value"]), f'<span class="soft">{"<br>".join(notes)}</span>'))
    return found


def _verdict(story: Story) -> str:
    decision = story.decision
    if decision is None:
        return "<p>There is none yet.</p>"
    if decision.verdict is None:
        return f"<p>{escape('; '.join(decision.reasons))}</p>"
    asked = [rule for rule in decision.verdict.rules if rule.ruling is not Ruling.ABSENT]
    others = [rule for rule in decision.verdict.rules if rule.ruling is Ruling.ABSENT]
    told = table(("rule", "ruling", "because"), list(map(_rule, asked)), wide=2)
    if not others:
        return told
    reasons = table(("rule", "because"), [(name, why) for name, _, why in map(_rule, others)], wide=1)
    count = "1 rule was" if len(others) == 1 else f"{len(others)} rules were"
    return f"{told}<details><summary>{count} not asked</summary>{reasons}</details>"


def _rule(rule: RuleOutcome) -> tuple[str, str, str]:
    said = rule.sentence.removeprefix(f"{rule.name}: ").removeprefix("not asked, ")
    ruling = rule.ruling.value
    return (
        f"<code>{escape(rule.name)}</code>",
        f'<span class="{RULINGS.get(ruling, "")}">{ruling}</span>',
        escape(said[:1].upper() + said[1:]),
    )


def _losses(story: Story) -> str:
    own = story.request.adapter_id
    val = [
        (float(entry["checkpoint"].rpartition("-")[2]), metric["value"])
        for entry in story.results["checkpoints"]
        if entry["adapter_id"] == own and entry["split"] == "val"
        for metric in entry["metrics"]
        if metric["metric"] == "nats_per_token" and "window_from" not in metric
    ]
    train = [(float(step["step"]), float(step["loss"])) for step in story.steps]
    lines = (
        Curve("train, each step", "train", tuple(train)),
        Curve("val, checkpoints", "val", tuple(sorted(val)), dots=True),
    )
    return curves(lines, "optimizer step")


def _selection(story: Story) -> str:
    choice = story.results.get("selection")
    told = "".join(f"<p>{escape(line[:1].upper() + line[1:])}.</p>" for line in story.course)
    if choice is None:
        return told
    weights = ", ".join(f"{part} {weight:.2f}" for part, weight in choice["weights"].items())
    told += f"<p>{escape(choice['reason'][:1].upper() + choice['reason'][1:])}.</p>"
    if weights:
        told += f'<p class="soft">Weights of the parts that differ: {escape(weights)}. In brackets: 0 worst, 1 best.</p>'
    return told + selection(choice)


def _data(story: Story) -> str:
    wanted = set(story.request.new_windows)
    rows = [
        (str(window.window_idx), *(f"{getattr(window.figures, name):,}" for name in DATA))
        for window in story.data.windows
        if window.window_idx in wanted
    ]
    rows.append(("ever", *(f"{getattr(story.data.ever, name):,}" for name in DATA)))
    names = ("window", *(name.replace("_", " ") for name in DATA))
    return table(names, rows, numbers=frozenset(range(1, len(names))))


def _tiers(story: Story) -> str:
    names = ("tier", "new", "tokens", "left out", "its tokens", "in earlier windows", "could be rehearsed")
    rows = [
        (
            one.tier,
            *(f"{n:,}" for n in (one.new, one.new_tokens, one.left_out, one.left_out_tokens, one.earlier, one.rehearsable)),
        )
        for one in story.tiers
    ]
    return table(names, rows, numbers=frozenset(range(1, len(names))))


def _time(story: Story) -> str:
    seconds = story.result.seconds
    whole = sum(seconds.values())
    steps = []
    for name, spent in seconds.items():
        steps.append((name, spent))
        if name == "train":
            steps += [(f"train: {part}", of_it) for part, of_it in story.result.training.items()]
    rows = [(escape(name), f"{spent:,.1f} s", share(spent, whole)) for name, spent in steps]
    return table(("step", "seconds", ""), rows, numbers=frozenset({1}))


def _examples(story: Story) -> str:
    titles = {"best": "Foretold best", "worst": "Foretold worst", "random": "Drawn by hash"}
    parts = [
        f"<h3>{title}</h3>{''.join(map(_example, story.examples[name]))}"
        for name, title in titles.items()
        if name in story.examples
    ]
    return "".join(parts)


def _example(example: Example) -> str:
    reply = example.reply
    told = ", ".join(f"given {what} {loss:.2f}" for what, loss in example.losses.items())
    found = "".join(f"<p class='soft'>{_head_of(mail)}: {_gist(mail.words, GIST)}</p>" for mail in example.found)
    made = (
        f"<p class='soft'>As the adapter wrote it:</p><blockquote class='made'>{_gist(example.written, WORDS)}</blockquote>"
    )
    return (
        f"<details><summary><b>{example.losses['retrieved']:.2f}</b> {_head_of(reply)}</summary>"
        f"<blockquote class='real'>{_gist(reply.words, WORDS)}</blockquote><p class='soft'>{told}</p>"
        f"{made if example.written else ''}<p class='soft'>Found for its subject:</p>{found or '<p>Nothing.</p>'}</details>"
    )


def _head_of(mail: Mail) -> str:
    return f"{escape(mail.sender)}, {mail.at:%Y-%m-%d}, <i>{escape(mail.subject or 'no subject')}</i>"


def _gist(words: str, most: int) -> str:
    return escape(words if len(words) <= most else f"{words[:most].rsplit(maxsplit=1)[0]} …")


def _foot(story: Story) -> str:
    environment = ", ".join(f"{escape(name)} {escape(value)}" for name, value in sorted(story.result.environment.items()))
    query = escape(f"""mailtide sql "FROM metrics WHERE run_id = '{story.request.run_id}'" """.strip())
    return (
        f"<footer><p>Every figure: <code>{query}</code>; every loss of a chunk: the view <code>losses</code>. "
        f"What they mean: docs/evaluation.md.</p><p>{environment}</p></footer>"
    )
