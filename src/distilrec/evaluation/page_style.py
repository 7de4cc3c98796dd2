"""Colors and style sheet of the report page, light and dark."""

from __future__ import annotations

__all__ = ["PAINT", "ROLE_PAINT", "STYLE"]

# Charts are drawn once, in stand-in colors; in the page each becomes a variable of the style sheet, so that the
# same drawing is right on white and on black.
PAINT: dict[str, str] = {
    "ink": "#010101", "soft": "#020202", "line": "#030303", "teacher": "#040404", "student": "#050505",
    "control": "#060606", "baseline": "#070707", "fusion": "#080808", "compressed": "#090909", "accent": "#0a0a0a",
    "member": "#0b0b0b",
}
ROLE_PAINT: dict[str, str] = {
    role: PAINT[role] for role in ("teacher", "member", "student", "control", "baseline", "fusion", "compressed")
}

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1b1f27; --soft: #5c6675; --line: #dfe3e9;
  --teacher: #2563c9; --member: #6f8fc4; --student: #0b8457; --control: #c26a00; --baseline: #7a8494; --fusion: #8446c5;
  --compressed: #c2306e; --accent: #1b1f27; --good: #0b8457; --bad: #b3261e; --open: #9a6700;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151b; --panel: #1b2029; --ink: #e8ebf0; --soft: #9aa5b5; --line: #303845;
    --teacher: #79aefc; --member: #9db4d6; --student: #45cf98; --control: #f5a94a; --baseline: #a3adbd;
    --fusion: #c79bf5; --compressed: #f58bb5; --accent: #e8ebf0; --good: #45cf98; --bad: #ff8a80; --open: #f0c04f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 52px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 0 0 8px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 88ch; }
.soft, figcaption { color: var(--soft); font-size: 14px; }
.verdict { margin: 28px 0 20px; padding: 24px 28px; border-radius: 14px; background: var(--panel);
  border-left: 6px solid var(--open); }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.verdict h2 { margin: 0 0 10px; font-size: 26px; color: var(--open); }
.verdict.good h2 { color: var(--good); } .verdict.bad h2 { color: var(--bad); }
.verdict p:first-of-type { font-size: 18px; } .verdict p:last-child { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; }
.tile { background: var(--panel); border-radius: 12px; padding: 16px 20px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; margin: 10px 0 6px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom; }
th, td { padding: 8px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
td:first-child { white-space: normal; min-width: 150px; overflow-wrap: anywhere; }
td small { color: var(--soft); } tr.student td { font-weight: 650; } tr.student small { font-weight: 400; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 28px; }
figure { margin: 14px 0 0; min-width: 0; } figure svg { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: 6px; }
details { margin: 14px 0; } summary { cursor: pointer; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 24px; margin: 12px 0; font-size: 15px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 13.5px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; background: var(--panel); padding: 14px 18px;
  border-radius: 10px; }
@media (max-width: 640px) { figure { overflow-x: auto; } figure svg { max-width: none; height: 230px; } }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; gap: 2px; } dd { margin-bottom: 8px; } }
@media print { main { max-width: none; padding: 0; } figure, .verdict, tr { break-inside: avoid; } }
"""
