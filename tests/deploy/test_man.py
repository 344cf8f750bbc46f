# SPDX-License-Identifier: Apache-2.0
"""The manual pages and completions as built: all that the programs offer is in them."""
import os, re, shutil, subprocess
import pytest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("X0_BUILD") or os.path.join(TOP, "build"))
assert os.path.exists(f"{BUILD}/deploy/x0.1"), "make build makes the pages"


def page(name):
    with open(f"{BUILD}/deploy/{name}") as f:
        text = f.read()
    assert "@" not in text  # no table left to fill
    return text.replace("\\-", "-").replace("\\&", "")


def x0(*argv):
    r = subprocess.run([f"{BUILD}/x0", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_every_command_and_option_is_in_the_page():
    text, help = page("x0.1"), x0("help")
    commands = re.findall(r"^  ([a-z][a-z -]*?)(?: \[?[A-Z].*?)?  +[A-Z0-9]", help.split("options of")[0], re.M)
    assert len(commands) > 30 and "ca add-issuer" in commands
    for c in commands:
        assert f"\\fB{c}\\fR" in text, c
        for o in re.findall(r"--[a-z-]+", x0("help", *c.split())):
            assert f"\\fB{o}\\fR" in text, (c, o)
    for status in re.findall(r"(?:,|ok,?) (\d) ", help.split("exit status:")[1]):
        assert f"\\fB{status}\\fR" in text


def test_every_key_is_in_the_page():
    text = page("x0.yaml.5")
    for path in ("config.def", "config_peer.def"):
        with open(f"{TOP}/schema/{path}") as f:
            keys = re.findall(r'^X\(\w+, "([a-z_.]+)"', f.read(), re.M)
        assert keys
        for k in keys:
            assert f"{'peers[].' if 'peer' in path else ''}{k}\\fR" in text.replace("\\.", "."), k


def test_every_option_of_the_broker_is_in_the_page():
    r = subprocess.run([f"{BUILD}/x0-broker", "--help"], capture_output=True, text=True, timeout=60)
    options = re.findall(r"^  (--[a-z]+)", r.stdout, re.M)
    assert len(options) >= 5
    for o in options:
        assert f"\\fB{o}\\fR" in page("x0-broker.8")


@pytest.mark.skipif(not shutil.which("man"), reason="needs man")
@pytest.mark.parametrize("name", ["x0.1", "x0.yaml.5", "x0-broker.8"])
def test_groff_has_nothing_to_say(name):
    r = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", f"{BUILD}/deploy/{name}"], capture_output=True, text=True,
                       timeout=60, env={**os.environ, "MANWIDTH": "100"})
    assert r.returncode == 0 and r.stdout and not r.stderr.strip(), r.stderr


@pytest.mark.skipif(not os.path.exists(f"{BUILD}/deploy/x0") and os.path.basename(BUILD) != "build",
                    reason="sanitizer builds make none")
def test_completion_for_three_shells():
    for f in ("x0", "_x0", "x0.fish"):
        with open(f"{BUILD}/deploy/{f}") as g:
            assert "add-issuer" in g.read()
    subprocess.run(["bash", "-n", f"{BUILD}/deploy/x0"], check=True, timeout=60)
