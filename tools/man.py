#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scdoc source of a manual page: a template of deploy/man with its @tables@ filled from the tables the programs use.
usage: man.py template version > page.scd"""
import os, re, sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def rows(path, macro):
    """The arguments of each macro(...) of a table; adjacent strings are one, as in C."""
    with open(os.path.join(TOP, path)) as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    for m in re.finditer(rf'^({macro})\(((?:"(?:[^"\\]|\\.)*"|[^")])*)\)', text, re.M):
        args = []
        for part in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', m[2]):
            strings = re.findall(r'"((?:[^"\\]|\\.)*)"', part)
            args.append("".join(strings).replace('\\"', '"') if strings else part.strip())
        yield m[1], args


def text(s):
    return re.sub(r"([*_\\<>#~.`])", r"\\\1", s)


def option(letter, name, arg, help):
    short = f"*-{letter[1]}*, " if letter != "0" else ""
    return f"{short}*--{text(name)}*" + (f" _{text(arg)}_" if arg else ""), help


def commands():
    out, opts = [], {}
    table = list(rows("schema/commands.def", "CMD|OPT"))
    for kind, a in table:
        if kind == "OPT":
            opts.setdefault(a[0], []).append(option(a[2], a[1], a[3], a[4]))
    for path, args, _, help in (a for kind, a in table if kind == "CMD"):
        out.append(f"*{text(path)}*" + (f" {text(args)}" if args else "") + f"\n\t{text(help)}.\n")
        for head, h in opts.pop(path, ()):
            out.append(f"\t{head}\n\t\t{text(h)}.\n")
    return "\n".join(out)


def exits():
    out = ["*0*\n\tok\n"]
    for _, (_, code, status, title) in rows("src/base/err.def", "X"):
        if int(code) >= -9:
            out.append(f"*{status}*\n\t{text(title)}\n")
    return "\n".join(out)


def keys(path, prefix=""):
    out = []
    for _, (_, key, _, default, _, _, reload, help) in rows(path, "X"):
        tail = ". Required" if default == "NULL" else f". Default: {text(default.split('|')[0])}" if default else ""
        if "|" in default:
            tail += " (" + text(", ".join(sorted(default.split("|")))) + ")"
        out.append(f"*{text(prefix + key)}*\n\t{text(help)}{tail}." + (" (reload)" if reload == "true" else "") + "\n")
    return "\n".join(out)


with open(sys.argv[1]) as f:
    page = f.read().split("; SPDX", 1)
page = page[0] + page[1].split("\n", 1)[1] if len(page) == 2 else page[0]
fill = {"version": lambda: sys.argv[2], "commands": commands, "exits": exits,
        "config": lambda: keys("schema/config.def") + "\n" + keys("schema/config_peer.def", "peers[].")}
sys.stdout.write(re.sub(r"@(\w+)@", lambda m: fill[m[1]](), page))
