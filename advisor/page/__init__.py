"""The local page of `advise ui`: a form, and the answer that follows every change of it.

Starlette serves it, Jinja2 makes its HTML and htmx, which lies beside this file under its own licence, sends each change and puts the
answer in its place. Of what is made for this (FastAPI, NiceGUI, Panel, Streamlit) these are the smallest parts that do it: everything is
read by GET, so that FastAPI's request bodies and schemas have no use, and the others keep a state and a channel of their own for each
reader, and bring a script that draws the page. The page computes nothing: every number and sentence is made by Python.

`question` reads what was asked, `answers` draws the answer in a process of its own, `pool` keeps those processes, `door` turns away
whatever does not come from the reader's own page, `app` puts them together and `serve` runs them.
"""
