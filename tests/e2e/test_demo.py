# SPDX-License-Identifier: Apache-2.0
"""The demo as a user runs it: every scene passes, the last line is its JSON, and nothing stays behind."""
import json
import os
import pathlib
import subprocess as sp

ROOT = pathlib.Path(__file__).resolve().parents[2]
X0 = pathlib.Path(os.environ.get("X0_BUILD", ROOT / "build")) / "x0"
SCENES = ["join", "handshake", "ping", "throughput", "wire-opaque", "restart", "replay", "leak"]


def left_behind():
    ns = [n for n in sp.run(["ip", "netns"], text=True, capture_output=True).stdout.split() if n.startswith("x0l-")]
    return ns + ([] if not pathlib.Path("/run/x0-lab").exists() else ["/run/x0-lab"])


def test_every_scene_passes():
    r = sp.run([X0, "demo", "--once", "--json"], text=True, capture_output=True, timeout=50)
    reply = json.loads(r.stdout.strip().splitlines()[-1])
    bad = [s for s in reply["scenes"] if not s["ok"]]
    assert not bad and r.returncode == 0, f"{bad}\n{r.stderr}"
    assert (reply["api"], reply["kind"], reply["ok"]) == ("x0/v1", "Demo", True)
    assert [s["name"] for s in reply["scenes"]] == SCENES
    assert left_behind() == []


def test_unknown_scene_is_refused_and_cleaned_up():
    r = sp.run([X0, "demo", "--once", "--json", "--scene", "nosuch"], text=True, capture_output=True, timeout=50)
    assert r.returncode != 0
    assert left_behind() == []
