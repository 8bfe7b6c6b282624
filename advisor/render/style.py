"""The look of HTML: one sheet for a page and for a part of a notebook.

Text takes the colours of the page around it; what has colours of its own follows the reader's choice of light or dark, and JupyterLab's
and VS Code's where a notebook is shown. Parts of bars differ by hatching as well as by colour, on paper too.
"""

from __future__ import annotations

LIGHT = ("#0072b2", "#b35900", "#007a5a", "#9c4a82", "#7a6a00", "#4450b8", "#6b6b6b")
DARK = ("#56b4e9", "#e69f00", "#00b386", "#cc79a7", "#f0e442", "#8c9eff", "#a0a0a0")
"""Of the parts of a bar, in order: Okabe and Ito's palette ("Color Universal Design", 2008), which the colour-blind tell apart,
and an indigo; darkened for a light page so that text in it reads, too."""
PATTERNS = len(LIGHT)
_HATCHES = (
    "none",
    "repeating-linear-gradient(45deg,#fff6 0 2px,#0000 2px 7px)",
    "repeating-linear-gradient(90deg,#fff6 0 2px,#0000 2px 6px)",
    "repeating-linear-gradient(-45deg,#fff6 0 2px,#0000 2px 5px)",
    "repeating-linear-gradient(0deg,#fff6 0 2px,#0000 2px 5px)",
    "repeating-linear-gradient(60deg,#fff6 0 1px,#0000 1px 4px)",
    "radial-gradient(#fff8 1px,#0000 1.5px) 0 0/5px 5px",
)
_SAID = {"green": ("#00703c", "#4cc38a"), "yellow": ("#8a5a00", "#f0b429"), "red": ("#b3261e", "#ff8a80")}
"""Styles of the blocks, in light and in dark: at least 4.5 to 1 on white and on #181818 (WCAG 2.2, 1.4.3)."""


_ON = ("#fff", "#111")
"""Of text on a part."""


def _variables(colours: tuple[str, ...], side: int) -> str:
    own = [f"--p{number}:{colour}" for number, colour in enumerate(colours)]
    return ";".join([f"--on:{_ON[side]}", *own, *(f"--{name}:{pair[side]}" for name, pair in _SAID.items())])


_PARTS = "".join(f".advise .p{number}{{background:{hatch},var(--p{number})}}" for number, hatch in enumerate(_HATCHES)).replace("none,", "")
_TEXTS = "".join(f".advise .{name}{{color:var(--{name})}}" for name in _SAID)

STYLE = f"""
.advise{{{_variables(LIGHT, 0)};font:15px/1.5 system-ui,sans-serif;color:inherit;max-width:70rem}}
@media (prefers-color-scheme:dark){{.advise{{{_variables(DARK, 1)}}}}}
[data-jp-theme-light="true"] .advise,.vscode-light .advise{{{_variables(LIGHT, 0)}}}
[data-jp-theme-light="false"] .advise,.vscode-dark .advise{{{_variables(DARK, 1)}}}
main.advise{{margin:0 auto;padding:1rem}}
body:has(>main.advise){{margin:0;background:#fff;color:#1b1b1b}}
@media (prefers-color-scheme:dark){{body:has(>main.advise){{background:#181818;color:#e8e8e8}}}}
.advise h1{{font-size:1.4rem;line-height:1.3}}.advise h2{{font-size:1.1rem;margin:1.6em 0 .5em}}.advise p{{margin:.5em 0}}
.advise .bold{{font-weight:600}}.advise .dim{{opacity:.75}}{_TEXTS}{_PARTS}
.advise a{{color:inherit}}
.advise .wide{{overflow-x:auto}}
.advise table{{border-collapse:collapse;margin:.5em 0;font-size:.9em}}
.advise th,.advise td{{padding:.15em .7em .15em 0;text-align:left;vertical-align:top;background:none;border:0;white-space:normal}}
.advise thead th{{border-bottom:1px solid currentColor;white-space:pre-line;vertical-align:bottom}}
.advise .wide td:first-child,.advise .right{{white-space:pre;font-variant-numeric:tabular-nums}}
.advise th.right,.advise td.right{{text-align:right}}
.advise .entries th,.advise .bars th{{font-weight:normal;white-space:nowrap}}.advise .entries th.bold{{font-weight:600}}
.advise .entries td{{overflow-wrap:anywhere}}
.advise .bars{{width:100%}}.advise .bar{{width:70%}}.advise .bar div{{height:.9em;min-width:1px}}
.advise .free{{border:1px dashed currentColor;box-sizing:border-box;opacity:.6}}
.advise .stack{{position:relative;display:flex;height:1.6em;margin:.6em 0 1.1em;border-left:1px solid currentColor}}
.advise .stack i{{display:block;height:100%;box-shadow:inset -1px 0 var(--on)}}
.advise .card{{position:absolute;top:-.4em;bottom:-.6em;border-left:3px double currentColor}}
.advise .reach{{position:absolute;top:100%;height:.35em;margin-top:.15em;border:1px solid currentColor;border-top:0}}
.advise .legend{{list-style:none;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:.2em 1.2em;font-size:.9em}}
.advise .legend i{{display:inline-block;width:.9em;height:.9em;margin-right:.4em;vertical-align:-.1em}}
.advise pre{{overflow-x:auto;padding:.6em;border:1px solid #8886;border-radius:4px;font-size:.88em;background:none;color:inherit}}
.advise figure{{margin:1em 0}}.advise figure svg{{max-width:100%;min-width:36rem;height:auto}}
.advise figcaption{{font-size:.9em;opacity:.85}}
.advise summary{{cursor:pointer;font-weight:600;margin:.4em 0}}
.advise .explore fieldset{{border:0;margin:.4em 0;padding:0;display:flex;flex-wrap:wrap;gap:.3em}}.advise .explore legend{{font-size:.9em}}
.advise .explore label{{position:relative}}.advise .explore input{{position:absolute;opacity:0;inset:0;margin:0;width:100%;height:100%}}
.advise .explore span{{display:block;padding:.15em .6em;border:1px solid #808080;border-radius:4px;font-size:.9em}}
.advise .explore p span{{padding:0;border:0;font-size:1em}}
.advise .explore :checked+span{{font-weight:600;box-shadow:inset 0 -3px var(--p0)}}
.advise .explore :focus-visible+span{{outline:3px solid var(--p0);outline-offset:1px}}
@media print{{.advise *{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}.advise pre{{white-space:pre-wrap}}
.advise .wide{{font-size:.8em}}.advise figure,.advise tr{{break-inside:avoid}}}}
"""
