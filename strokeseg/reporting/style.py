"""The style sheet of the report: light and dark, phone and paper.

The colours are Okabe and Ito's, which the colour-blind tell apart, in a darker shade on white.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2024; --soft: #5b6570; --line: #d5dae0; --shade: #f4f6f8;
  --blue: #0072b2; --orange: #c04e00; --grey: #6b7580;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6e9ec; --soft: #a3adb7; --line: #38414a; --shade: #1d2329;
    --blue: #56b4e9; --orange: #e69f00; --grey: #9aa4ae;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1rem 1.2rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
a { color: var(--blue); }
code { overflow-wrap: anywhere; }
nav a { margin-right: 1rem; display: inline-block; }
.note, figcaption, .lead { color: var(--soft); font-size: .9rem; }
.headline { background: var(--shade); border-left: .35rem solid var(--blue);
  padding: .8rem 1.1rem; margin: 1rem 0; }
.headline p { margin: .2rem 0; }
.headline .score { font-size: 1.9rem; font-weight: 650; line-height: 1.2; }
.caution { border-left: .35rem solid var(--orange); background: var(--shade);
  padding: .5rem 1.1rem .5rem 2rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums;
  min-width: 50%; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .45rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--grey); }
th:first-child { text-align: left; }
tbody th { font-weight: 500; white-space: nowrap; }
.table { margin: 1.1rem 0; }
.wide th, .wide td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  gap: 1.4rem; }
figure { margin: 0; min-width: 0; }
figure.broad { grid-column: 1 / -1; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--ink); font-size: 12.5px; paint-order: stroke; stroke: var(--paper);
  stroke-width: 3px; }
.chart .grid { stroke: var(--line); }
.chart .interval { stroke: var(--ink); stroke-width: 1.6; }
.chart .post { stroke: var(--grey); }
.chart .blue { fill: var(--blue); fill-opacity: .8; }
.chart .orange { fill: var(--orange); fill-opacity: .85; }
.chart .open { fill: none; stroke-width: 1.8; }
.chart .grey { stroke: var(--grey); }
.chart polyline { fill: none; }
.chart .best-so-far { stroke: var(--blue); stroke-width: 1.5; }
.chart .good { stroke: var(--orange); stroke-width: 2.6; }
.chart .other { stroke: var(--grey); stroke-width: 1; opacity: .7; }
.chart .level { stroke: var(--orange); stroke-width: 1.4; }
.chart .upper, .chart .lower { stroke-dasharray: 6 4; }
.sight { margin: 1.2rem 0 2rem; }
.sight img.planes { width: 100%; max-width: 52rem; height: auto; display: block;
  background: #000; margin: .3rem 0; }
.viewer { background: #000; color: #e6e9ec; padding: .4rem; max-width: 52rem; }
.viewer canvas { display: block; cursor: crosshair; }
.sliders { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .3rem; font-size: .85rem; }
.sliders label { flex: 1 1 9rem; }
.sliders span { display: block; }
.sliders input { width: 100%; }
.key { display: inline-block; width: .8em; height: .8em; border: 1px solid var(--soft);
  margin: 0 .3em 0 .8em; }
@media (max-width: 34rem) {
  body { padding: .6rem .7rem 3rem; font-size: 15px; }
  .headline .score { font-size: 1.4rem; }
  figure.broad { overflow-x: auto; }
  .broad .chart { min-width: 46rem; }
}
@media print {
  :root {
    --paper: #ffffff; --ink: #000000; --soft: #333333; --line: #bbbbbb; --shade: #ffffff;
    --blue: #0072b2; --orange: #c04e00; --grey: #555555;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .viewer-part, details { display: none; }
  .scroll { overflow: visible; }
  .note, figcaption { font-size: 8pt; }
  table { font-size: 7.5pt; width: 100%; }
  th, td, tbody th { white-space: normal; }
  th, td { padding: .1rem .3rem; }
  h2, h3, caption { break-after: avoid; }
  figure, .sight, table, .headline { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
  .sight img.planes { max-width: 11.5cm; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
}
"""
