# SPDX-License-Identifier: Apache-2.0
"""Two hosts: what a user does every day."""
import json, os, shutil, socket, subprocess, time
import pytest
import lab as L


def test_peers_negotiate_post_quantum_keys(pair):
    a, b = pair
    p = a.peer(b)
    assert p["group"] == "X25519MLKEM768"
    assert p["signature"].lower() == "mldsa65"
    assert p["id"] == f"spiffe://{L.DOMAIN}/node/node-b"
    assert p["address"] == b.overlay()
    assert 0 < p["handshake_ms"] < 20000


def test_ping_by_name_and_through_the_overlay(pair):
    a, b = pair
    r = b.json("ping", "node-a", "-c", "3", "-i", "0.05")
    assert r["ok"] and r["answered"] == 3 and all(0 < x < 5000 for x in r["rtt_ms"])
    assert a.ping(b.overlay(), 3) == 3
    assert b.ping(a.overlay(), 3) == 3


def test_tcp_arrives_unchanged_both_ways(pair):
    a, b = pair
    for s, r in ((a, b), (b, a)):
        want, got, _ = L.transfer(s, r, r.overlay())
        assert got == want


def test_wire_shows_nothing_of_the_payload(pair):
    a, b = pair
    needle = b"x0-secret-needle"
    to = b.overlay()
    wire, tun = L.Capture(a, "u0"), L.Capture(a, "x0")

    def send():
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for _ in range(20):
            s.sendto(needle * 4, (to, 9))
    L.in_ns(a.ns, send)
    inside, outside = tun.stop(), wire.stop()
    # Next header 17: the answers, ICMP port unreachable, quote the payload too.
    assert sum(needle in f and f[6] == 17 for f in inside) == 20
    assert sum(map(len, outside)) >= 20 * (64 + 8 + 40 + 28)  # one captured frame may be a batch (UDP GSO)
    assert not any(needle in f for f in outside)


def test_unknown_overlay_address_is_unreachable_at_once(pair):
    a, _ = pair
    prefix = ":".join(a.overlay().split(":")[:3])
    t0 = time.monotonic()
    r = a.exec("ping", "-n", "-c", "1", "-W", "3", f"{prefix}::dead", check=False)
    assert r.returncode != 0
    assert "nreachable" in r.stdout + r.stderr
    assert time.monotonic() - t0 < 20


def test_ping_of_an_unknown_peer_names_the_remedy(pair):
    a, _ = pair
    r = a.x0("ping", "nobody", check=False)
    assert r.returncode == 4
    assert "no peer 'nobody'" in r.stderr and "x0 peers" in r.stderr
    r = a.x0("--json", "ping", "nobody", check=False)
    e = json.loads(r.stdout)
    assert (e["api"], e["kind"], e["ok"], e["error"]["code"]) == ("x0/v1", "Error", False, "not-found")


def test_status_identity_and_nodes(pair):
    a, b = pair
    s = a.json("status")
    assert s["ok"] and s["peers_up"] == 1 and s["issuer"] and s["svid_expires_s"] > 80000
    i = b.json("identity", "show")
    assert i["id"].endswith("/node/node-b") and i["bundle"]["link_roots"] == 1
    assert b.x0("identity", "verify").returncode == 0
    nodes = {n["name"]: n["state"] for n in a.json("node", "list")["nodes"]}
    assert nodes == {"node-a": "active", "node-b": "active"}


def test_metrics_are_well_formed_and_bounded(pair):
    a, _ = pair
    text = a.metrics()
    types, seen = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} is declared twice"
            types[name] = kind
            assert (kind == "counter") == name.endswith("_total"), line
        elif not line.startswith("#"):
            sample = line.rsplit(" ", 1)[0]
            assert sample not in seen, f"{sample} is there twice"
            seen.add(sample)
            float(line.rsplit(" ", 1)[1])
            family = sample.split("{")[0]
            base = family
            for end in ("_bucket", "_sum", "_count"):
                if family.endswith(end) and family[:-len(end)] in types:
                    base = family[:-len(end)]
            assert base in types, line
    for want in ("x0_tunnel_drops_total", "x0_session_handshake_seconds", "x0_identity_svid_not_after_timestamp_seconds"):
        assert want in types
    assert 'x0_tunnel_drops_total{reason="replay"} ' in text
    promtool = shutil.which("promtool", path=os.environ.get("X0_PREFIX", "/opt/x0") + "/bin:" + os.environ["PATH"])
    if promtool:
        r = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        assert r.returncode == 0, r.stdout + r.stderr


def test_doctor_finds_nothing_wrong(pair):
    a, _ = pair
    r = a.x0("doctor", "--json", check=False)
    checks = json.loads(r.stdout)["checks"]
    bad = [c for c in checks if c["status"] == "fail"]
    assert not bad and r.returncode == 0
    names = {c["name"] for c in checks}
    assert {"kernel", "openssl", "tun", "svid", "clock", "issuer", "leak-guard", "broker"} <= names
    for c in checks:
        assert c["status"] == "ok" or c["todo"], c


def test_a_debug_bundle_holds_no_secret(pair):
    a, _ = pair
    token = a.x0("ca", "token", "node-x", "--addr", "10.79.0.1:7430").stdout.strip()
    text = a.x0("debug", "bundle").stdout
    assert "==== /status" in text and "==== config" in text
    assert token not in text and token.split(".")[1][:40] not in text
    assert "PRIVATE KEY" not in text


def test_daemon_has_no_rights(pair):
    a, _ = pair
    with open(f"/proc/{a.pid()}/status") as f:
        status = dict(line.split(":", 1) for line in f.read().splitlines() if ":" in line)
    assert status["Uid"].split() == [str(L.USER)] * 4
    assert status["Gid"].split() == [str(L.USER)] * 4
    for k in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
        assert int(status[k], 16) == 0, k
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    with open(f"/proc/{a.pid('issuer')}/status") as f:
        status = dict(line.split(":", 1) for line in f.read().splitlines() if ":" in line)
    assert status["Uid"].split() == [str(L.USER + 1)] * 4 and status["Seccomp"].strip() == "2"


def test_only_root_and_the_daemon_may_use_the_api(pair):
    a, _ = pair
    path = os.path.join(a.run_dir, "api.sock")
    st = os.stat(path)
    assert st.st_mode & 0o777 == 0o660
    # Through the file's mode, a stranger is refused by the credentials.
    os.chmod(path, 0o666)
    try:
        r = a.exec("setpriv", "--reuid", "65000", "--regid", "65000", "--clear-groups", L.X0, "--config", a.conf, "status",
                   check=False)
    finally:
        os.chmod(path, 0o660)
    assert r.returncode == 5 and "only root" in r.stderr


def test_api_survives_garbage_and_slow_clients(pair):
    a, b = pair
    path = os.path.join(a.run_dir, "api.sock")
    slow = []
    for _ in range(30):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(b"GET /api/v1/status HT")
        slow.append(s)
    for junk in (b"\0" * 4096, b"GET " + b"/x" * 9000 + b" HTTP/1.1\r\n\r\n", b"POST /api/v1/ping HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 999999999\r\n\r\n", b"POST /api/v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(junk)
        s.settimeout(2)
        try:
            s.recv(100)
        except (TimeoutError, ConnectionResetError):
            pass
        s.close()
    assert a.json("status")["ok"]
    assert a.ping(b.overlay(), 2) == 2
    for s in slow:
        s.close()


def test_second_up_changes_nothing(pair):
    a, _ = pair
    pid = a.pid()
    a.up()
    assert a.pid() == pid


@pytest.mark.parametrize("argv, status, says", [
    (["stauts"], 2, "did you mean 'x0 status'"),
    (["ca", "tokn", "x"], 2, "did you mean 'x0 ca token'"),
    (["ping", "--cuont", "3", "x"], 2, "did you mean '--count'"),
    (["ping"], 2, "takes NAME"),
    (["ca"], 2, "needs a verb"),
    (["ping", "-c", "0", "x"], 2, "from 1 to 100"),
    (["completion", "tcsh"], 2, "bash, zsh and fish"),
])
def test_wrong_usage_is_explained(pair, argv, status, says):
    r = pair[0].x0(*argv, check=False)
    assert r.returncode == status and says in r.stderr
