"""The look of the page: light and dark, on a phone and on paper.

Source of the colours: Okabe and Ito, Color universal design, 2008; darkened on light ground and
brightened on dark until they stand out.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f7f9; --rule: #d6dce2; --ink: #17212b; --quiet: #566370;
  --a: #0072b2; --b: #c44f00; --c: #007a59; --d: #a8487f; --link: #005c91;
  --truth: #1f78ab; --prediction: #9a6700; --agreed: #007a59;
  --warn-ground: #fff5e0; --warn-rule: #e69f00;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #10161c; --raised: #182028; --rule: #34404b; --ink: #e7ecf1; --quiet: #9fadba;
    --a: #56b4e9; --b: #f08a3c; --c: #2fbf95; --d: #dc93bb; --link: #7cc5f0;
    --truth: #56b4e9; --prediction: #e69f00; --agreed: #2fbf95;
    --warn-ground: #2b2415; --warn-rule: #b97f00;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 72rem;
  background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .9rem 0 0; font-size: .92rem; }
code, pre { font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--raised); border-radius: 6px; }
.note { color: var(--quiet); font-size: .9rem; }
.warning { padding: .7rem 1rem; background: var(--warn-ground);
  border-left: 4px solid var(--warn-rule);
  border-radius: 4px; max-width: none; }
.warning p { margin: .2rem 0; max-width: none; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem 1rem;
  margin: 1.3rem 0 .2rem; }
.headline strong { font-size: 3.4rem; line-height: 1; letter-spacing: -.02em; color: var(--a); }
.headline span { font-size: 1.15rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .7rem; margin: 1.1rem 0; }
.card { padding: .65rem .85rem; background: var(--raised); border-radius: 6px; }
.card b { display: block; font-size: 1.3rem; line-height: 1.3; }
.card span { display: block; color: var(--quiet); font-size: .84rem; line-height: 1.4; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
  gap: 1rem 1.6rem; }
figure { margin: .8rem 0; min-width: 0; }
figcaption { color: var(--quiet); font-size: .88rem; margin-top: .3rem; }
.plot svg { display: block; width: 100%; height: auto; max-width: 31rem; }
.wide { overflow-x: auto; }
.wide svg { min-width: 46rem; max-width: 60rem; }
.picture img { display: block; width: 100%; max-width: 62rem;
  height: auto; background: #000; border-radius: 4px; }
.scroll { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .55rem; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--quiet); vertical-align: bottom; }
td { white-space: nowrap; }
td:first-child { font-weight: 600; }
td small { display: block; color: var(--quiet); font-size: .88em; }
tr.own td { background: color-mix(in srgb, var(--a) 9%, transparent); }
table.words th, table.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.words td:first-child { white-space: nowrap; }
details { margin: .7rem 0; }
summary { cursor: pointer; color: var(--link); font-weight: 600; }
.stage { background: #000; margin: .5rem 0; border-radius: 4px; overflow: hidden;
  max-width: 62rem; }
.stage canvas { display: block; cursor: crosshair; touch-action: manipulation; }
.controls { display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; font-size: .9rem; align-items: end; }
.controls span { display: block; }
.truth { color: var(--truth); font-weight: 600; }
.prediction { color: var(--prediction); font-weight: 600; }
.agreed { color: var(--agreed); font-weight: 600; }
svg text { font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  fill: var(--quiet); }
svg .title { fill: var(--ink); }
svg .strong { fill: var(--ink); font-weight: 600; }
svg .halo { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; fill: var(--ink);
  font-size: 11.5px; }
svg .hue-a { --hue: var(--a); } svg .hue-b { --hue: var(--b); }
svg .hue-c { --hue: var(--c); } svg .hue-d { --hue: var(--d); }
svg .hue-quiet { --hue: var(--quiet); }
svg circle, svg rect, svg polygon { fill: var(--hue); }
svg .faint { fill-opacity: .35; }
svg .hollow { fill: var(--ground); stroke: var(--a); stroke-width: 1.6; }
svg .line { fill: none; stroke: var(--hue, var(--quiet)); stroke-width: 1.8;
  stroke-linejoin: round; }
svg .line.interval { stroke-width: 3; }
svg .line.dashed { stroke-dasharray: 6 4; }
svg .line.grid { stroke: var(--rule); stroke-width: 1; }
svg .line.axis { stroke: var(--quiet); stroke-width: 1; }
svg .line.best { stroke: var(--b); stroke-width: 3; }
svg .line.share-0 { stroke: var(--a); stroke-opacity: .22; }
svg .line.share-1 { stroke: var(--a); stroke-opacity: .35; }
svg .line.share-2 { stroke: var(--a); stroke-opacity: .5; }
svg .line.share-3 { stroke: var(--a); stroke-opacity: .7; }
svg .line.share-4 { stroke: var(--a); stroke-opacity: .95; }
@media (max-width: 34rem) {
  body { padding: 1rem .85rem 3rem; }
  .headline strong { font-size: 2.7rem; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, .viewer { display: none; }
  h2 { break-after: avoid; } h3 { break-after: avoid; }
  figure, .card, tr, .warning { break-inside: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .scroll { overflow: visible; }
  table { font-size: 7.4pt; }
  td small { font-size: 6.4pt; white-space: nowrap; }
  th, td { padding: .22rem .28rem; }
  td { white-space: normal; }
  .plots { grid-template-columns: 1fr 1fr; }
  .wide svg { min-width: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@page { margin: 14mm; }
"""
