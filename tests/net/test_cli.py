# SPDX-License-Identifier: Apache-2.0
"""Commands for people and scripts, on a running pair."""
import json, os, pty, select, subprocess, time
import lab as L


def until(fd, what, seconds=20):
    """What a terminal or pipe shows until `what` was there."""
    out, end = b"", time.monotonic() + seconds
    while what not in out and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            out += os.read(fd, 65536)
    assert what in out, out
    return out


def test_tables_are_plain_and_aligned(pair):
    a, _ = pair
    for cmd in (["peers"], ["top", "--once"], ["node", "list"], ["status"], ["doctor"]):
        out = a.x0(*cmd, check=cmd != ["doctor"]).stdout
        assert "\x1b" not in out and "(null)" not in out and "nan" not in out, out
    head, row = a.x0("peers").stdout.splitlines()[:2]
    assert row.index("up") == head.index("STATE") and row.startswith("node-b")


def test_every_reading_command_speaks_json(pair):
    a, _ = pair
    for cmd in (["status"], ["peers"], ["top"], ["doctor"], ["version"], ["identity", "show"], ["identity", "verify"],
                ["node", "list"], ["config", "check"], ["config", "show"], ["config", "diff", a.conf]):
        r = a.x0(*cmd, "--json", check=False)
        o = json.loads(r.stdout)
        assert r.stdout.count("\n") == 1 and o["api"] == "x0/v1" and o["kind"], cmd
        assert r.returncode == (0 if o["ok"] else 6), cmd


def test_top_in_a_pipe_and_on_a_terminal(pair):
    a, b = pair
    argv = ["ip", "netns", "exec", a.ns, L.X0, "--config", a.conf, "top"]
    p = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        a.ping(b.overlay(), 20, 1, 0.02)
        out = until(p.stdout.fileno(), b"node-b") + until(p.stdout.fileno(), b"node-b")
        assert b"\x1b" not in out and out.count(b"NAME") == 2
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
    master, slave = pty.openpty()
    p = subprocess.Popen(argv, stdout=slave, stderr=slave)
    try:
        out = until(master, b"node-b")
        assert out.startswith(b"\x1b[2J\x1b[H") and b"\x1b[K" in out
        out = until(master, b"node-b")
        assert b"\x1b[2J" not in out  # no flicker
        a.kill()
        until(master, b"no daemon answers")
        assert p.poll() is None
        a.up()
        until(master, b"node-b")
    finally:
        p.kill()
        p.wait()
        os.close(master)
        os.close(slave)
    L.wait_for("linked again", lambda: a.linked(b) and b.linked(a), 20)


def test_completion_in_bash(pair):
    a, _ = pair
    script = os.path.join(a.dir, "x0.bash")
    with open(script, "w") as f:
        f.write(a.x0("completion", "bash").stdout)

    def complete(*words):
        code = f"source {script}; COMP_WORDS=({' '.join(repr(w) for w in words)}); " \
               f"COMP_CWORD={len(words) - 1}; _x0; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return L.run("bash", "--norc", "-c", code).stdout.split()
    assert complete("x0", "sta") == ["status"]
    assert {"init", "token", "revoke"} <= set(complete("x0", "ca", ""))
    assert complete("x0", "ca", "tok") == ["token"]
    assert complete("x0", "ca", "token", "name", "--eph") == ["--ephemeral"]
    assert complete("x0", "--json", "pee") == ["peers"]
    assert complete("x0", "peers", "--js") == ["--json"]
    assert a.conf in complete("x0", "--config", a.conf[:-2])
    assert complete("x0", "--config", a.conf, "pee") == ["peers"]
    assert complete("x0", "--config", "=", a.conf, "pee") == ["peers"]
    assert complete("x0", "ping", "-c", "3", "--int") == ["--interval"]
