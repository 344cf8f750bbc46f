# SPDX-License-Identifier: Apache-2.0
"""Bad links: loss, reordering, small MTU, other addresses. The hosts are those of `x0 lab up`."""
import math, socket, struct, time
import pytest
import lab as L

DROPS = 'x0_tunnel_drops_total{reason="%s"}'


def within(hits, of, share, sigmas=5):
    """Whether so many of so many are what a coin of this share gives; 5 sigma: false once in 10^6 runs."""
    return abs(hits - of * share) <= sigmas * math.sqrt(of * share * (1 - share)) + 1


def alive(*hosts):
    """What tells a session from its successor, seen from each host."""
    return [(p["session"], p["state"]) for h in hosts for p in h.json("peers")["peers"]]


def handshakes(*hosts):
    return [h.metric("x0_session_handshakes_total") for h in hosts]


def test_loss_takes_single_frames(x0_lab):
    """The sender hands over batches (UDP GSO); a batch must not be lost as one."""
    hosts = x0_lab("a-b")
    a, b, batch, batches = hosts["a"], hosts["b"], 60, 400
    L.lab_links("a-b", "--loss", "5%")

    def sink():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        s.bind(("10.77.0.2", 9))
        s.settimeout(0.5)
        return s
    s = L.in_ns(b.ns, sink)
    before = [x for x in L.lab_links("a-b") if x["from"] == "a"][0]

    def send():
        c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        c.setsockopt(17, 103, 1000)  # UDP_SEGMENT
        for k in range(batches):
            c.sendto(b"".join(struct.pack("!I996x", k * batch + i) for i in range(batch)), ("10.77.0.2", 9))
    got = set()
    L.in_ns(a.ns, send)
    while True:
        try:
            got.add(struct.unpack("!I", s.recv(2000)[:4])[0])
        except TimeoutError:
            break
    s.close()
    x = [x for x in L.lab_links("a-b") if x["from"] == "a"][0]
    n, lost = batch * batches, sorted(set(range(batch * batches)) - got)
    assert x["seen"] - before["seen"] >= n and x["merged"] == 0
    assert within(x["lost"] - before["lost"], x["seen"] - before["seen"], 0.05)
    assert within(len(lost), n, 0.05)
    # And each on its own: of independent losses, 5 % follow another.
    assert within(sum(v - 1 == u for u, v in zip(lost, lost[1:])), len(lost), 0.05)


def test_tcp_survives_loss_and_so_does_the_session(x0_lab):
    hosts = x0_lab("a-b")
    a, b = hosts["a"], hosts["b"]
    was = alive(a, b)
    L.lab_links("a-b", "--loss", "5%")
    want, got, _ = L.transfer(a, b, b.overlay(), 1 << 20, seconds=60)
    assert got == want
    assert all(x["lost"] > 0 and x["merged"] == 0 for x in L.lab_links("a-b"))
    assert alive(a, b) == was


def test_reordering_is_no_replay(x0_lab):
    hosts = x0_lab("a-b")
    a, b = hosts["a"], hosts["b"]
    L.lab_links("a-b", "--reorder", "5%")
    want, got, _ = L.transfer(a, b, b.overlay(), 2 << 20, seconds=60)
    assert got == want
    assert all(x["held"] > 0 and x["merged"] == 0 and x["lost"] == 0 for x in L.lab_links("a-b"))
    for h in (a, b):
        assert h.metric(DROPS % "replay") == 0


def test_delay_and_rate_are_what_was_said(x0_lab):
    hosts = x0_lab("a-b")
    a, b = hosts["a"], hosts["b"]
    L.lab_links("a-b", "--delay", "30ms", "--rate", "20mbit")
    rtt = b.json("ping", "a", "-c", "3", "-i", "0.1")["rtt_ms"]
    assert min(rtt) >= 60
    want, got, took = L.transfer(a, b, b.overlay(), 2 << 20, seconds=60)
    assert got == want and took >= 2 * 8.4 / 20 * 0.8
    x = L.lab_links("a-b", "--delay", "0s", "--rate", "0")[0]
    assert x["delay_ns"] == x["rate_bps"] == 0
    assert a.linked(b)


SMALL = """
underlay: ipv6
links:
  - {link: a-b, mtu: 1280}
"""


def test_an_ipv6_underlay_of_1280_bytes_carries_larger_packets(x0_lab, tmp_path):
    (tmp_path / "lab.yaml").write_text(SMALL)
    hosts = x0_lab(str(tmp_path / "lab.yaml"))
    a, b = hosts["a"], hosts["b"]
    assert a.peer(b)["path"] == "[2001:db8:77::2]:7430"
    assert not a.exec("ip", "-4", "-o", "addr", "show", "dev", "u-b").stdout
    mtu = a.json("status")["mtu"]
    assert mtu > 1280
    wire = L.Capture(a, "u-b")
    # A packet as long as the device takes, not to be fragmented, is two frames.
    r = a.exec("ping", "-n", "-M", "do", "-s", str(mtu - 48), "-c", "5", "-i", "0.05", "-W", "5", b.overlay(), check=False)
    assert r.stdout.count("bytes from") == 5, r.stdout
    want, got, _ = L.transfer(a, b, b.overlay(), 4 << 20, seconds=60)
    frames = wire.stop()
    assert got == want
    assert a.peer(b)["frame_max"] <= 1280 - 48
    # 44: a fragment header. Nobody fragmented on the way; what the stack cuts later (UDP GSO) is seen in one piece.
    assert not any(f[12:14] == b"\x86\xdd" and f[20] == 44 for f in frames)
    for h in (a, b):
        assert h.metric(DROPS % "split") == h.metric(DROPS % "too_big") == 0


def test_a_file_makes_links_bad_from_the_start(x0_lab, tmp_path):
    (tmp_path / "lab.yaml").write_text("links:\n  - {link: a-b, loss: 2%, delay: 5ms, rate: 100mbit}\n")
    x0_lab(str(tmp_path / "lab.yaml"))
    for x in L.lab_links():
        assert (x["loss_ppm"], x["delay_ns"], x["rate_bps"], x["reorder_ppm"]) == (20000, 5000000, 100000000, 0)
    (tmp_path / "bad.yaml").write_text("links:\n  - {link: a-b, los: 2%}\n")
    r = L.run(L.X0, "lab", "up", str(tmp_path / "bad.yaml"), check=False)
    assert r.returncode != 0 and "bad.yaml:2:" in r.stderr and "loss" in r.stderr
    assert L.lab_links()  # what ran still runs


def test_own_new_address_is_told_at_once(x0_lab):
    """The peer has traffic, the one that moved has none: without its word, 25 s of silence."""
    hosts = x0_lab("a-b")
    a, b = hosts["a"], hosts["b"]
    to, was, count = a.overlay(), alive(a, b), handshakes(a, b)
    assert b.ping(to, 2) == 2
    L.run("ip", "-n", a.ns, "addr", "add", "10.77.0.77/24", "dev", "u-b")
    L.run("ip", "-n", a.ns, "addr", "del", "10.77.0.1/24", "dev", "u-b")
    # Removing the first address of a subnet removes those that came later.
    L.run("ip", "-n", a.ns, "addr", "replace", "10.77.0.77/24", "dev", "u-b")
    L.wait_for("the peer to use the new address", lambda: "10.77.0.77" in b.peer(a)["path"], 15, 0.1)
    assert b.ping(to, 3) == 3
    assert alive(a, b) == was and handshakes(a, b) == count
    assert b.metric("x0_session_path_changes_total") >= 1
