"""The page of a sitting: one file that loads nothing. It holds no mail; its script asks for one pair at a time and puts it
in as text, never as HTML, so that nothing in a mail can be more than words."""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5c6675; --line: #dfe3e9; --page: #f6f7f9; --card: #ffffff;
  --blue: #2563a8; --green: #1b7f4b; --red: #b3362e; --press: #eaf1fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #303a47; --page: #12171e;
  --card: #1a212b; --blue: #6fb0ee; --green: #58c68b; --red: #ef7d74; --press: #22303f; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 22px 20px 150px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: 1rem; margin: 0 0 2px; }
.soft { color: var(--soft); font-size: .9rem; margin: 0; }
#count { margin-left: auto; font-variant-numeric: tabular-nums; }
progress { display: block; width: 100%; height: 8px; margin: 10px 0 18px; appearance: none; border: 0; border-radius: 4px;
  overflow: hidden; background: var(--line); color: var(--blue); }
progress::-webkit-progress-bar { background: var(--line); }
progress::-webkit-progress-value { background: var(--blue); }
progress::-moz-progress-bar { background: var(--blue); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px;
  margin: 0 0 14px; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0 0; }
.long { max-height: 19rem; overflow-y: auto; }
#asked-card { border-left: 4px solid var(--soft); }
#real-card { border-left: 4px solid var(--green); }
#sitting { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
#sitting section { margin: 0; min-width: 0; }
.reply { border-top: 4px solid var(--blue); }
nav { position: fixed; inset: auto 0 0 0; background: var(--card); border-top: 1px solid var(--line); padding: 10px 20px; }
nav div { max-width: 1040px; margin: 0 auto; display: flex; flex-wrap: wrap; gap: 8px; }
button { flex: 1 1 auto; font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line);
  border-radius: 8px; padding: 8px 12px; cursor: pointer; white-space: nowrap; }
button.main { border-color: var(--blue); font-weight: 600; }
button:hover, button:focus-visible { background: var(--press); }
button:disabled { opacity: .5; cursor: default; }
kbd { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--soft);
  border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; margin-right: 6px; }
#trouble { color: var(--red); max-width: 1040px; margin: 0 auto 6px; }
#result p { margin: 6px 0; }
@media (max-width: 640px) { main { padding: 14px 10px 190px; } #sitting { grid-template-columns: 1fr; }
  section { padding: 12px; }
  nav { padding: 8px 10px; } button { padding: 7px 8px; } .long { max-height: 11rem; }
  button span { display: none; } }
"""

SCRIPT = """
"use strict";
const $ = name => document.getElementById(name);
const buttons = [...document.querySelectorAll("button")];
const keys = {"1": "1", "2": "2", "t": "tie", "0": "tie", "b": "bad", "s": "skip", "u": "back", "Backspace": "back"};
let shown = 0, busy = true;

function text(name, words) { $(name).textContent = words; }

function show(state) {
  shown = state.number;
  const done = state.pair === null;
  $("bar").max = state.total;
  $("bar").value = Math.min(state.number - 1, state.total);
  text("count", done ? "" : `${state.number} of ${state.total}`);
  $("sitting").hidden = done;
  $("keys").hidden = done;
  $("result").hidden = !done;
  text("title", done ? "Thank you" : "Which reply is better?");
  if (done) {
    $("told").replaceChildren(...state.result.map(line => {
      const part = document.createElement("p");
      part.textContent = line;
      return part;
    }));
  } else {
    for (const [name, words] of Object.entries(state.pair)) text(name, words || (name.endsWith("lead") ? "" : "(nothing)"));
    for (const part of document.querySelectorAll(".words")) part.scrollTop = 0;
    window.scrollTo(0, 0);
  }
}

async function ask(path, body) {
  busy = true;
  for (const button of buttons) button.disabled = true;
  try {
    const options = body && {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
    const answer = await fetch(path, options);
    const state = await answer.json();
    if (answer.ok) { show(state); text("trouble", ""); } else text("trouble", state.error);
  } catch (error) {
    text("trouble", "The command that shows this page has ended. What you said is kept; the same command goes on.");
  }
  busy = false;
  for (const button of buttons) button.disabled = false;
}

function say(choice) { if (!busy) ask("verdict", {number: shown, choice}); }

for (const button of buttons) button.addEventListener("click", () => say(button.value));
document.addEventListener("keydown", event => {
  const choice = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!choice || event.ctrlKey || event.altKey || event.metaKey || event.repeat || $("keys").hidden) return;
  event.preventDefault();
  say(choice);
});
ask("state");
"""

BUTTONS = (
    ("1", "1", "Reply 1<span> is better</span>", "main"),
    ("2", "2", "Reply 2<span> is better</span>", "main"),
    ("t", "tie", "Tie", ""),
    ("b", "bad", "Both bad", ""),
    ("s", "skip", "Skip", ""),
    ("u", "back", "Back", ""),
)


def page(mailbox: str) -> str:
    """The whole document."""
    buttons = "".join(
        f'<button value="{value}" class="{kind}" disabled><kbd>{key}</kbd>{label}</button>'
        for key, value, label, kind in BUTTONS
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Spot check of {escape(mailbox)}</title><style>{STYLE}</style></head><body><main>"
        '<header><h1 id="title">Which reply is better?</h1>'
        f'<p class="soft">Mailbox {escape(mailbox)}, mail that nobody trained on</p>'
        '<p class="soft" id="count" role="status"></p></header><progress id="bar" max="1" value="0"></progress>'
        '<div id="sitting" hidden>'
        '<section id="asked-card"><h2 id="subject"></h2><p class="soft" id="asked_lead"></p>'
        '<p class="words long" id="asked" tabindex="0"></p></section>'
        '<section id="real-card"><h2>What was really answered</h2><p class="soft" id="real_lead"></p>'
        '<p class="words long" id="real" tabindex="0"></p></section>'
        '<section class="reply"><h2>Reply 1</h2><p class="words" id="first"></p></section>'
        '<section class="reply"><h2>Reply 2</h2><p class="words" id="second"></p></section></div>'
        '<section id="result" hidden><h2>Done</h2><div id="told"></div>'
        '<p class="soft">You may close this page.</p></section></main>'
        f'<nav id="keys"><p id="trouble" role="alert"></p><div>{buttons}</div></nav>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def content_policy() -> str:
    """What the page may do: run its own script and style, and ask where it came from."""
    return (
        f"default-src 'none'; script-src '{_digest(SCRIPT)}'; style-src '{_digest(STYLE)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
