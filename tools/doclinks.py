#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the documents point at is there: relative links (with their anchors) of every *.md and template, `x0 COMMAND`s of
schema/commands.def with their options, `make` targets of the Makefile, paths of the repository in backquotes."""
import glob, os, re, sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
os.chdir(TOP)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def anchors(text):
    out = set()
    for h in re.findall(r"^#+ +(.*)$", text, re.M):
        out.add(re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h).lower()).strip().replace(" ", "-"))
    return out


table = read("schema/commands.def")
commands = set(re.findall(r'^CMD\("([^"]+)"', table, re.M))
groups = {c.split()[0] for c in commands if " " in c}
options = {}
for path, name in re.findall(r'^OPT\("([^"]+)", "([^"]+)"', table, re.M):
    options.setdefault(path, set()).add(name)
targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.M))
everywhere = {"json", "config", "help"}
bad = []


def command(where, words):
    """words: what follows x0 in a document."""
    w = [x for x in words if re.fullmatch(r"[a-z][a-z-]*", x)]
    if not w or words[0].startswith("-"):
        return
    path = " ".join(words[:2]) if words[0] in groups else words[0]
    if words[0] in groups and re.fullmatch(r"(?:[a-z-]+\|)+[a-z-]+", words[1] if len(words) > 1 else ""):
        for alternative in words[1].split("|"):
            command(where, [words[0], alternative])
        return
    if words[0] in groups and len(words) == 1:
        return
    if path not in commands:
        bad.append(f"{where}: no command 'x0 {path}' in schema/commands.def")
        return
    for o in words:
        if o == "--":
            break
        m = re.match(r"--([a-z-]+)", o)
        if m and m[1] not in options.get(path, set()) | everywhere:
            bad.append(f"{where}: 'x0 {path}' has no option --{m[1]}")


def code(where, text):
    for c in re.findall(r"(?:^|[\s;|&(])(?:\S*/)?x0 ((?:[^\s;&|#]|(?<=[a-z])\|(?=[a-z])).*)", text):
        command(where, re.split(r"[;&]| \|", c)[0].rstrip(".,:)").split())
    for t in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", text):
        if t not in targets:
            bad.append(f"{where}: no target '{t}' in the Makefile")


pages = sorted(p for p in glob.glob("**/*.md", recursive=True) if not p.startswith("build"))
for page in pages:
    # What docs/status.md calls absent may be missing.
    text = re.sub(r"^\|.*\| absent \|.*$", "", read(page), flags=re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        full = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not os.path.exists(full):
            bad.append(f"{page}: {target} does not exist")
        elif anchor and full.endswith(".md") and anchor not in anchors(read(full)):
            bad.append(f"{page}: {full} has no heading #{anchor}")
    blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.M | re.S)
    for b in blocks:
        for line in b.splitlines():
            if line.startswith(("x0 ", "$ x0", "make ", "sudo ")):
                code(page, line)
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        if re.fullmatch(r"x0 \w+ v\d", span):
            continue  # a label of key derivation
        if re.match(r"(x0|make|build/x0) ", span):
            code(page, span)
        elif re.fullmatch(r"(src|docs|tools|tests|schema|deploy|bench)/[\w./-]*", span) and not os.path.exists(span):
            bad.append(f"{page}: {span} does not exist")
print("\n".join(bad))
print(f"note: {len(pages)} pages")
sys.exit(1 if bad or not pages else 0)
