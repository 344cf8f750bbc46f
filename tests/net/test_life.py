# SPDX-License-Identifier: Apache-2.0
"""What happens to a mesh over time: crashes, renewals, revocations, changes of configuration, bad input."""
# Times here only tell "soon" from "never": how fast it is, the benchmarks say. A slow machine fails no test.
import json, os, signal, subprocess, threading, time
import pytest
import lab as L

FAST = "identity: {ttl: 20s}\n"


def steady(host, addr, seconds, gap=0.01):
    """Pings every `gap` s in the background; call the result to wait and get the answered sequence numbers."""
    n = int(seconds / gap)
    p = subprocess.Popen(["ip", "netns", "exec", host.ns, "ping", "-n", "-D", "-i", str(gap), "-c", str(n), "-W", "1", addr],
                         stdout=subprocess.PIPE, text=True)

    def wait():
        out, _ = p.communicate(timeout=seconds + 20)
        return n, {int(w.split("=")[1]): float(line.split("time=")[1].split()[0]) for line in out.splitlines()
                   if "bytes from" in line for w in line.split() if w.startswith("icmp_seq=")}
    return wait


def test_start_is_fast(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    for h in (a, b):
        h.down()
    t0 = time.monotonic()
    a.up()
    took = time.monotonic() - t0
    b.up()
    assert took < 5
    _, s = L.wait_for("ping", lambda: a.ping(b.overlay(), 1, 1), 20)
    assert s < 10


def test_killed_daemon_leaks_nothing_and_recovers(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    to, ifindex = b.overlay(), a.exec("cat", "/sys/class/net/x0/ifindex").stdout
    address = a.overlay()
    assert a.ping(to, 2) == 2
    wire = L.Capture(a, "u0")
    a.kill()
    assert a.exec("cat", "/sys/class/net/x0/ifindex").stdout == ifindex  # the broker keeps the device
    assert address in a.exec("ip", "-6", "addr", "show", "dev", "x0").stdout
    assert a.ping(to, 5, 1, 0.05) == 0
    frames = wire.stop()
    # Nothing of the overlay in clear: no IPv6 packet with an overlay address, no ICMPv6 echo.
    prefix = bytes.fromhex("fd") + __import__("socket").inet_pton(10, to)[1:6]
    clear = [f for f in frames if f[12:14] == b"\x86\xdd" and prefix in f[22:54]]
    assert not clear
    t0 = time.monotonic()
    a.up()
    L.wait_for("traffic after the restart", lambda: a.ping(to, 1, 1), 20)
    assert time.monotonic() - t0 < 10
    assert a.exec("cat", "/sys/class/net/x0/ifindex").stdout == ifindex
    assert a.json("status")["adopted"]
    assert b.ping(a.overlay(), 2) == 2


def test_broker_killed_too_leaves_the_route_that_stops_leaks(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    to = b.overlay()
    a.kill("daemon")
    a.kill("broker")
    # The device went with its owner; the unreachable route stays.
    r = a.exec("ping", "-n", "-c", "1", "-W", "1", to, check=False)
    assert r.returncode != 0
    assert "unreachable" in a.exec("ip", "-6", "route", "show", "table", "all").stdout
    a.up()
    L.wait_for("traffic", lambda: a.ping(to, 1, 1), 20)


def test_down_leaves_nothing(make_lab):
    lab = make_lab("node-a")
    a, = L.mesh(lab)
    a.down()
    assert "x0" not in a.exec("ip", "-o", "link").stdout.replace("x0t", "")
    assert "fd" not in a.exec("ip", "-6", "route").stdout
    assert not [f for f in os.listdir(a.run_dir) if not f.endswith(".log")]
    assert not L.run("ip", "netns", "pids", a.ns).stdout.split()
    assert a.x0("status", check=False).returncode == 3
    a.up()
    assert a.json("status")["ok"]


def test_a_pid_of_somebody_else_is_left_alone(make_lab):
    a, = L.mesh(make_lab("node-a"))
    a.down()
    victim = subprocess.Popen(["sleep", "30"])
    try:
        with open(os.path.join(a.run_dir, "daemon.pid"), "w") as f:
            f.write(f"{victim.pid} 12345\n")
        a.down()
        assert victim.poll() is None
        a.up()
    finally:
        victim.kill()
        victim.wait()


def test_renewal_loses_no_packet(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"), FAST)
    wait, bare = steady(a, b.overlay(), 14), steady(a, b.addr, 14)
    keys, seen = set(), set()
    for _ in range(14):
        keys.add(a.json("identity", "show")["link"]["key_sha256"])
        seen.add(b.json("identity", "show")["link"]["key_sha256"])
        time.sleep(0.9)
    n, got = wait()
    assert len(keys) >= 2 and len(seen) >= 2, "both nodes renewed"
    assert len(got) == n, f"lost {sorted(set(range(1, n + 1)) - set(got))}"
    # None late, unless the machine itself stood still: then the bare link shows it too.
    late, stall = max(got.values()), max(bare()[1].values())
    assert late < max(500, 10 * stall), f"{late} ms late, {stall} ms on the bare link"


def test_renew_now_and_after_the_issuer_was_away(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    before = b.json("identity", "show")["link"]["serial"]
    b.x0("identity", "renew")
    assert b.json("identity", "show")["link"]["serial"] != before
    a.kill("issuer")
    r = b.x0("identity", "renew", check=False)
    assert r.returncode != 0 and "issuer" in r.stderr
    assert a.ping(b.overlay(), 2) == 2  # sessions need no issuer
    a.up()
    b.x0("identity", "renew")


def test_revocation_ends_sessions_within_a_second(make_lab):
    a, b, c = L.mesh(make_lab("node-a", "node-b", "node-c"))
    to = b.overlay()
    assert a.ping(to, 1) == 1 and c.ping(to, 1) == 1
    a.x0("ca", "revoke", "node-b")
    t0 = time.monotonic()
    L.wait_for("a to drop b", lambda: not a.linked(b), 20)
    L.wait_for("c to drop b", lambda: not c.linked(b), 20)
    L.wait_for("b to have nobody", lambda: not b.linked(a) and not b.linked(c), 20)
    took = time.monotonic() - t0
    print(f"from x0 ca revoke returning to the last session closed: {took * 1000:.0f} ms, polling included")
    assert took < 10
    assert a.ping(to, 2, 1) == 0 and c.ping(to, 2, 1) == 0
    assert a.ping(c.overlay(), 2) == 2
    assert c.json("identity", "show")["bundle"]["revoked"] == [f"spiffe://{L.DOMAIN}/node/node-b"]
    # It stays out, also after a restart, until it joins again.
    b.kill()
    b.up()
    time.sleep(1.5)
    assert not a.linked(b) and not c.linked(b)
    token = a.x0("ca", "token", "node-b", "--addr", f"{a.addr}:7430").stdout.strip()
    b.down()
    b.x0("join", token)
    b.up()
    L.wait_for("b back", lambda: a.linked(b) and c.linked(b), 10)
    assert c.ping(to, 2) == 2


def test_removed_node_never_comes_back(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    a.x0("node", "remove", "node-b")
    L.wait_for("a to drop b", lambda: not a.linked(b), 20)
    r = a.x0("ca", "token", "node-b", "--addr", f"{a.addr}:7430", check=False)
    assert r.returncode == 5 and "node-b" in r.stderr


def test_token_works_once_and_expires(make_lab):
    lab = make_lab("node-a", "node-b", "node-c")
    a, b, c = lab.hosts
    for h in lab.hosts:
        h.config()
    a.x0("ca", "init")
    a.up()
    token = a.x0("ca", "token", "node-b", "--addr", f"{a.addr}:7430").stdout.strip()
    assert token.startswith("x0t1.") and "\n" not in token
    broken = token[:-4] + ("aaaa" if not token.endswith("aaaa") else "bbbb")
    r = b.x0("join", broken, check=False)
    assert r.returncode != 0 and "token" in r.stderr
    b.x0("join", token)
    r = c.x0("join", token, "--timeout", "5", check=False)
    assert r.returncode != 0
    assert not os.path.exists(f"{c.dir}/state/node/identity")
    r = b.x0("up")  # and the one that joined works
    short = a.x0("ca", "token", "node-c", "--ttl", "1s", "--addr", f"{a.addr}:7430").stdout.strip()
    time.sleep(2.2)
    r = c.x0("join", short, "--timeout", "3", check=False)
    assert r.returncode in (1, 5, 7) and "expired" in r.stderr + "expired" * (r.returncode == 7)


def test_config_typo_is_found_and_nothing_starts(make_lab):
    a = make_lab("node-a").hosts[0]
    a.config("listn: \"[::]:7430\"\n")
    r = a.x0("config", "check", check=False)
    assert r.returncode == 9
    assert "x0.yaml:6:1" in r.stderr and "listen" in r.stderr
    assert a.x0("up", check=False).returncode == 9
    a.config("tun: {mtu: 100}\n")
    r = a.x0("config", "check", check=False)
    assert r.returncode == 9 and "1280" in r.stderr
    r = a.x0("--json", "config", "check", check=False)
    assert json.loads(r.stdout)["error"]["code"] == "config"


def test_broken_config_does_not_hide_the_running_daemon(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    a.config("nonsense: 1\n", [b])
    assert a.x0("config", "check", check=False).returncode == 9
    r = a.x0("status")
    assert "nonsense" in r.stderr and "node-a" in r.stdout
    assert "node-b" in a.x0("peers").stdout
    checks = {k["name"]: k for k in json.loads(a.x0("--json", "doctor", check=False).stdout)["checks"]}
    assert checks["config"]["status"] == "fail" and "nonsense" in checks["config"]["detail"]
    assert checks["daemon"]["status"] == "ok" and checks["broker"]["status"] == "ok"
    assert a.x0("up", check=False).returncode == 9  # what starts something still refuses
    a.x0("ping", "node-b", "--count", "1")


def test_apply_that_cuts_the_link_is_undone(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    # Only a dials, so that forgetting b on a ends the link.
    b.down()
    b.config()
    os.remove(f"{b.dir}/state/node/seeds")
    b.up()
    L.wait_for("a linked", lambda: a.linked(b))
    kept = open(a.conf).read()
    new = os.path.join(a.dir, "new.yaml")
    with open(new, "w") as f:
        f.write(kept.split("peers:")[0])
    assert "peers" in a.x0("config", "diff", new).stdout
    a.x0("config", "apply", new, "--confirm", "2s")
    L.wait_for("the peer to go", lambda: not a.linked(b), 20)
    assert open(a.conf).read() == kept, "the file changes only when confirmed"
    L.wait_for("the old configuration", lambda: a.linked(b), 20)
    assert a.x0("config", "confirm", check=False).returncode == 8
    a.x0("config", "apply", new, "--confirm", "5s")
    a.x0("config", "confirm")
    assert "peers" not in open(a.conf).read()
    time.sleep(5.2)
    assert "peers" not in a.json("config", "show")["effective"].replace("peers: []", "")
    # What needs a restart is refused whole.
    with open(new, "w") as f:
        f.write(kept + "workers: 1\n")
    r = a.x0("config", "apply", new, check=False)
    assert r.returncode == 8 and "workers" in r.stderr and "restart" in r.stderr


def test_sighup_reloads_peers_and_keeps_the_old_on_errors(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    to = b.overlay()
    a.config("nonsense: 1\n")
    os.kill(a.pid(), signal.SIGHUP)
    L.wait_for("the error in the log", lambda: "nonsense" in a.log(), 20)
    assert a.ping(to, 2) == 2
    a.config("log: {level: debug}\n", [b])
    os.kill(a.pid(), signal.SIGHUP)
    L.wait_for("the new one in force", lambda: "no difference" in a.x0("config", "diff", a.conf).stdout, 20)
    assert a.linked(b)


def bundle(host):
    return host.json("identity", "show")["bundle"]


def second_issuer(a, b, others):
    b.x0("ca", "init")
    b.down()
    b.up()
    L.wait_for("b linked", lambda: b.linked(a))
    roots = os.path.join(b.dir, "roots.pem")
    with open(roots, "w") as f:
        f.write(b.x0("ca", "roots").stdout)
    a.x0("ca", "add-issuer", roots)
    for h in [b, *others]:
        L.wait_for(f"the bundle at {h.name}", lambda h=h: bundle(h)["link_roots"] == 2, 20)


def test_second_issuer_answers_joins_at_once(make_lab):
    lab = make_lab("node-a", "node-b")
    a, b = L.mesh(lab)
    pid = b.pid()
    second_issuer(a, b, [])
    started = b.pid()
    L.wait_for("the SVID from the own root", lambda: "the mesh trusts the local issuer now" in b.log(), 20)
    c = lab.add("node-c", 3)
    c.config("", [a, b])
    token = b.x0("ca", "token", "node-c", "--addr", f"{b.addr}:7430").stdout
    r = c.x0("join", "-", input="nonsense\n", check=False)
    assert r.returncode and "token" in r.stderr and "standard input" not in r.stderr
    assert "standard input" in c.x0("join", "-", check=False).stderr
    c.x0("join", "-", input=" " + token)
    assert b.pid() == started != pid, "no restart in between"
    c.up()
    L.wait_for("c linked with both", lambda: c.linked(a) and c.linked(b), 20)


def test_two_issuers_revoke_at_once(make_lab):
    lab = make_lab("node-a", "node-b", "node-c", "node-d", "node-e")
    a, b, c, d, e = L.mesh(lab)
    second_issuer(a, b, [c, d, e])
    L.run("ip", "-n", lab.sw, "link", "set", "p2", "nomaster")
    a.x0("ca", "revoke", "node-c")
    b.x0("ca", "revoke", "node-d")
    assert bundle(a)["number"] == bundle(b)["number"] and bundle(a)["revoked"] != bundle(b)["revoked"]
    L.run("ip", "-n", lab.sw, "link", "set", "p2", "master", "br0")
    both = [f"spiffe://{L.DOMAIN}/node/node-{n}" for n in "cd"]
    for h in (a, b, e):
        L.wait_for(f"both revocations at {h.name}", lambda h=h: bundle(h)["revoked"] == both, 60)
    L.wait_for("one number", lambda: bundle(a)["number"] == bundle(b)["number"] == bundle(e)["number"], 20)
    for h in (a, b, e):
        assert not h.linked(c) and not h.linked(d)
        L.wait_for("the others linked", lambda h=h: all(h.linked(p) for p in (a, b, e) if p is not h), 60)


def test_second_issuer(make_lab):
    a, b, c = L.mesh(make_lab("node-a", "node-b", "node-c"))
    second_issuer(a, b, [c])
    # The first issuer dies; the second renews.
    a.down()
    L.wait_for("c linked with b", lambda: c.linked(b))
    before = c.json("identity", "show")["link"]["serial"]
    L.wait_for("renewal by b", lambda: c.x0("identity", "renew", check=False).returncode == 0, 15, 0.5)
    assert c.json("identity", "show")["link"]["serial"] != before
    L.wait_for("sessions go on", lambda: c.ping(b.overlay(), 1, 1), 20)


def test_authority_backup_and_restore(make_lab):
    lab = make_lab("node-a", "node-b")
    a, b = L.mesh(lab)
    pw = os.path.join(a.dir, "pw")
    with open(pw, "w") as f:
        f.write("correct horse\n")
    out = os.path.join(a.dir, "backup")
    a.x0("ca", "backup", out, "--password-file", pw)
    assert os.stat(out).st_mode & 0o777 == 0o600
    a.down()
    L.run("rm", "-r", f"{a.dir}/state/authority")
    with open(pw + ".bad", "w") as f:
        f.write("wrong\n")
    assert a.x0("ca", "restore", out, "--password-file", pw + ".bad", check=False).returncode == 5
    a.x0("ca", "restore", out, "--password-file", pw)
    a.up()
    L.wait_for("linked", lambda: b.linked(a))
    b.x0("identity", "renew")


def test_read_only_state_does_not_stop_traffic(make_lab):
    a, b = L.mesh(make_lab("node-a", "node-b"))
    node = f"{b.dir}/state/node"
    os.chown(node, 0, 0)  # the daemon cannot write there any more
    try:
        r = b.x0("identity", "renew", check=False)
        assert r.returncode == 0
        L.wait_for("the log to say so", lambda: "not stored" in b.log(), 20)
        assert a.ping(b.overlay(), 3) == 3
    finally:
        os.chown(node, L.USER, L.USER)


def test_without_rights_or_identity_it_says_what_is_needed(make_lab):
    a = make_lab("node-a").hosts[0]
    a.config()
    r = a.x0("up", check=False)
    assert r.returncode == 4 and "x0 join" in r.stderr
    r = a.exec("setpriv", "--reuid", "65000", "--regid", "65000", "--clear-groups", L.X0, "--config", a.conf, "up", check=False)
    assert r.returncode == 5 and "root" in r.stderr
