"""The page's style: light and dark as the reader's machine has it, narrow and wide, on paper too."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5c6675; --line: #dfe3e9; --page: #f6f7f9; --card: #ffffff;
  --blue: #2563a8; --orange: #b8601b; --green: #1b7f4b; --red: #b3362e; --amber: #8a6400; --heat: 184, 72, 40; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #303a47; --page: #12171e; --card:
  #1a212b; --blue: #6fb0ee; --orange: #e59a57; --green: #58c68b; --red: #ef7d74; --amber: #e0b64a; --heat: 226, 112, 72;
  } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 22px 0 6px; }
p { margin: 6px 0; }
.soft, .key, figcaption { color: var(--soft); font-size: .9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 16px
  0; }
.badge { display: inline-block; padding: 2px 12px; border-radius: 99px; border: 1.5px solid currentColor; font-weight:
  600; }
.good { color: var(--green); }
.bad { color: var(--red); }
.open { color: var(--amber); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: 5px 12px 5px 0; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.name { white-space: nowrap; }
tr.chosen td { font-weight: 600; }
tr:last-child td { border-bottom: 0; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
td:first-child > code { white-space: nowrap; }
.heat td { text-align: center; padding: 6px 8px; border: 2px solid var(--card); border-radius: 4px; min-width: 52px; }
.heat th { padding: 4px 8px; text-align: center; }
.heat th.row { text-align: right; font-weight: 400; }
.chart { width: 100%; max-width: 760px; height: auto; display: block; overflow: visible; }
.chart text { fill: var(--soft); font-size: 12px; }
.chart .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
polyline.train { stroke: var(--blue); opacity: .75; }
polyline.val { stroke: var(--orange); stroke-width: 2.5; }
circle.val { fill: var(--orange); }
circle.train { fill: var(--blue); }
.key span { margin-right: 18px; white-space: nowrap; }
.key i { display: inline-block; width: 18px; height: 4px; border-radius: 2px; margin-right: 6px; vertical-align: middle;
  }
.key i.train { background: var(--blue); }
.key i.val { background: var(--orange); }
.bar { width: 120px; height: 16px; vertical-align: middle; }
.rail { stroke: var(--line); }
.zero { stroke: var(--soft); stroke-dasharray: 2 2; }
.whisker { stroke: var(--blue); stroke-width: 3; stroke-linecap: round; opacity: .55; }
.point { fill: var(--blue); }
.share { display: inline-block; width: 120px; height: 9px; border-radius: 5px; background: var(--line); overflow:
  hidden; }
.share span { display: block; height: 100%; background: var(--blue); }
details { border-top: 1px solid var(--line); padding: 8px 0; }
summary { cursor: pointer; }
blockquote { margin: 6px 0; padding: 2px 0 2px 14px; border-left: 3px solid var(--line); white-space: pre-wrap;
  overflow-wrap: anywhere; }
blockquote.real { border-color: var(--green); }
blockquote.made { border-color: var(--orange); }
footer { color: var(--soft); font-size: .85rem; }
@media (max-width: 560px) { main { padding: 16px 10px 40px; } section { padding: 14px 12px; border-radius: 8px; }
  .chart text { font-size: 19px; } }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""
