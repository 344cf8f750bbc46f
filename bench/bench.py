#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Figures of x0 beside the bare link and a peer, from one run on this machine.

usage: bench.py [NAME ...]     default: all; the names are in ROWS below

Two hosts in network namespaces over one veth pair (x0 lab up a-b). The peer is nebula with its offloads switched on and 10 MB
socket buffers, if $PEERS/nebula and $PEERS/nebula-cert exist; without it its columns stay empty. Rounds alternate bare, x0, peer;
medians of $ROUNDS (3). Writes build/bench.json and prints the table.
"""
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess as sp
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
X0 = str(ROOT / "build" / "x0")
UDPLOAD = str(ROOT / "build" / "udpload")
PEERS = os.environ.get("PEERS", "")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
HZ = os.sysconf("SC_CLK_TCK")
NEBULA = "nebula 1.12, offloads, 10 MB buffers"
# name: unit, what the ratio is against
ROWS = dict(
    tcp1=("Gbit/s", NEBULA), tcp1_loss=("Gbit/s", "bare link, the same 0.5 % of frames lost"),
    tcp1_reorder=("Gbit/s", "bare link, the same 0.5 % of frames late"), pps64=("packets/s", NEBULA),
    cpu_packet=("us CPU/packet", NEBULA), cpu_gb=("CPU s/GB", NEBULA), rtt_p50=("us", NEBULA), cold_start=("ms", NEBULA),
    handshake_cpu=("us CPU", "the same operations called bare"), control_1000=("us CPU/message", "the same at 10 sessions"),
    rss_idle=("MB", NEBULA), rss_after=("MB", NEBULA), lanes4=("CPU s/GB", "1 stream"))
CPU_RATE = 100_000  # packets/s at which the CPU of a packet is compared


def sh(cmd, check=True, **kw):
    r = sp.run(cmd, shell=True, text=True, capture_output=True, **kw)
    if check and r.returncode:
        raise RuntimeError(f"{cmd}\n{r.stdout}{r.stderr}")
    return r.stdout


def inside(host, cmd, **kw):
    return sh(f"ip netns exec x0l-{host} {cmd}", **kw)


def cpu(pids):
    t = 0
    for p in pids:
        f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
        t += int(f[11]) + int(f[12])
    return t / HZ


def rss(pids):
    return statistics.mean(int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{p}/status").read())[1]) for p in pids) / 1024


class Bare:
    name, addr, pids = "bare", "10.77.0.2", []

    def start(self):
        pass

    def stop(self):
        pass


class Ours:
    name = "x0"

    def start(self):
        for h in "ab":
            inside(h, f"{X0} --config /run/x0-lab/{h}/x0.yaml up")
        self.addr = json.loads(inside("b", f"{X0} --config /run/x0-lab/b/x0.yaml status --json"))["address"]
        self.pids = [int(open(f"/run/x0-lab/{h}/run/daemon.pid").read().split()[0]) for h in "ab"]
        first_ping(self.addr)

    def stop(self):
        for h in "ab":
            inside(h, f"{X0} --config /run/x0-lab/{h}/x0.yaml down", check=False)


class Nebula:
    name, addr = "nebula", "172.30.0.2"

    def __init__(self, d):
        self.d = d
        sh(f"cd {d} && {PEERS}/nebula-cert ca -name t")
        for i, h in enumerate("ab", 1):
            sh(f"cd {d} && {PEERS}/nebula-cert sign -name {h} -ip 172.30.0.{i}/24")
            anything = [dict(port="any", proto="any", host="any")]
            cfg = dict(pki=dict(ca=f"{d}/ca.crt", cert=f"{d}/{h}.crt", key=f"{d}/{h}.key"), cipher="aes",
                       static_host_map={f"172.30.0.{3 - i}": [f"10.77.0.{3 - i}:4242"]},
                       lighthouse=dict(am_lighthouse=False, hosts=[]),
                       listen=dict(host="0.0.0.0", port=4242, udp_offloads=True, read_buffer=10485760, write_buffer=10485760),
                       tun=dict(dev=f"neb{h}", use_offloads=True), local_api=dict(control=dict(enabled=False)),
                       logging=dict(level="error", format="text"), firewall=dict(outbound=anything, inbound=anything))
            pathlib.Path(f"{d}/{h}.yml").write_text(json.dumps(cfg))

    def start(self):
        self.procs = [sp.Popen(["ip", "netns", "exec", f"x0l-{h}", f"{PEERS}/nebula", "-config", f"{self.d}/{h}.yml"],
                               stdout=sp.DEVNULL, stderr=sp.DEVNULL) for h in "ba"]
        self.pids = [p.pid for p in self.procs]
        first_ping(self.addr)

    def stop(self):
        for p in self.procs:
            p.terminate()
        for p in self.procs:
            p.wait()


def first_ping(addr, timeout=15):
    """Seconds until the first answer."""
    t0 = time.monotonic()
    while time.monotonic() < t0 + timeout:
        if sp.run(["ip", "netns", "exec", "x0l-a", "ping", "-c1", "-W1", "-i0.01", "-q", addr], capture_output=True).returncode == 0:
            return time.monotonic() - t0
    raise RuntimeError(f"no answer from {addr} within {timeout} s")


def iperf(addr, args):
    server = sp.Popen(["ip", "netns", "exec", "x0l-b", "iperf3", "-s", "-1", "-B", addr], stdout=sp.DEVNULL, stderr=sp.DEVNULL)
    try:
        for _ in range(20):
            time.sleep(0.1)
            r = sp.run(["ip", "netns", "exec", "x0l-a", "iperf3", "-J", "-c", addr, *args], text=True, capture_output=True)
            d = json.loads(r.stdout)
            if "error" not in d:
                return d
        raise RuntimeError(d["error"])
    finally:
        server.terminate()
        server.wait()


def tcp(peer, streams=1):
    """Gbit/s and CPU seconds per GB, both ends, of that many streams."""
    c0 = cpu(peer.pids)
    d = iperf(peer.addr, ["-t", str(SECONDS), "-P", str(streams)])
    c1 = cpu(peer.pids)
    s = d["end"]["sum_received"]
    return s["bits_per_second"] / 1e9, (c1 - c0) / (s["bytes"] / 1e9)


def udp_rate(peer, rate):
    """64-byte packets offered at that rate for 2 s; what arrived per second, and the share lost in percent."""
    server = sp.Popen(["ip", "netns", "exec", "x0l-b", UDPLOAD, "recv", peer.addr, "2.5"], text=True, stdout=sp.PIPE)
    time.sleep(0.1)
    sent = json.loads(inside("a", f"{UDPLOAD} send {peer.addr} 64 {rate:.0f} 2"))
    got = json.loads(server.communicate()[0])
    return got["packets"] / got["seconds"], 100 * (1 - got["packets"] / sent["packets"]), sent["packets"] / sent["seconds"]


def pps(peer):
    """Highest rate with at most 0.1 % loss, by bisection of the offered rate; a rate counts if two of three tries hold."""
    lo, hi, best = 20e3, 1e6, 0
    while hi / lo > 1.06:
        mid, held = (lo * hi) ** 0.5, 0
        for k in range(3):
            got, lost, offered = udp_rate(peer, mid)
            # A generator that cannot offer it holds nothing.
            if lost <= 0.1 and offered > 0.97 * mid:
                held += 1
                best = max(best, got)
            if held == 2 or k - held == 1:
                break
        lo, hi = (mid, hi) if held == 2 else (lo, mid)
    return best


def cpu_packet(peer):
    c0 = cpu(peer.pids)
    got = udp_rate(peer, CPU_RATE)[0]
    return (cpu(peer.pids) - c0) / (got * 2) * 1e6


def rtt(peer):
    out = inside("a", f"ping -c 400 -i 0.005 {peer.addr}")
    return statistics.median(float(x) for x in re.findall(r"time=([\d.]+)", out)) * 1000


def cold(peer):
    peer.stop()
    t0 = time.monotonic()
    peer.start()
    return (time.monotonic() - t0) * 1000


def measure(peer, wanted):
    """One round of what is compared with the bare link or the peer."""
    r = {}
    peer.start()
    try:
        time.sleep(1)
        if peer.pids:
            r["rss_idle"] = rss(peer.pids)
        if {"tcp1", "cpu_gb", "lanes4"} & wanted:
            r["tcp1"], r["cpu_gb"] = tcp(peer)
        if "lanes4" in wanted and peer.name == "x0":
            r["lanes4"], r["lanes4 reference"] = tcp(peer, 4)[1], r["cpu_gb"]
        if "pps64" in wanted:
            r["pps64"] = pps(peer)
        if "cpu_packet" in wanted and peer.pids:
            r["cpu_packet"] = cpu_packet(peer)
        if "rtt_p50" in wanted:
            r["rtt_p50"] = rtt(peer)
        if peer.pids:
            r["rss_after"] = rss(peer.pids)
        if "cold_start" in wanted and peer.pids:
            r["cold_start"] = cold(peer)
    finally:
        peer.stop()
    return r


def bad_link(peers, name, option, rows):
    """TCP over the link and through x0, both under the same impairment. Segmentation offload of the link is off from here on."""
    sh(f"{X0} lab link a-b --loss 0 --reorder 0 --{option} 0.5%")
    for p in peers:
        p.start()
        try:
            add(rows, p.name, {name: tcp(p)[0]})
        finally:
            p.stop()


def add(rows, who, figures):
    for name, v in figures.items():
        rows.setdefault(name, {}).setdefault(who, []).append(v)


def programs(wanted, rows):
    """What needs no network: our session code against bare operations, and against itself with fewer sessions."""
    if "handshake_cpu" in wanted:
        d = json.loads(sh(str(ROOT / "build" / "bench-handshake")))
        add(rows, "x0", {"handshake_cpu": d["handshake_us"], "handshake_cpu reference": d["bare_us"]})
    if "control_1000" in wanted:
        d = json.loads(sh(str(ROOT / "build" / "bench-control")))
        add(rows, "x0", {"control_1000": d["us_1000"], "control_1000 reference": d["us_10"]})


def network(wanted, rows, d):
    sh(f"{X0} lab up a-b")
    try:
        peers = [Bare(), Ours()]
        if PEERS and os.access(f"{PEERS}/nebula", os.X_OK):
            peers.append(Nebula(d))
        else:
            print("no peer: set PEERS to a directory with nebula and nebula-cert", file=sys.stderr)
        peers[1].stop()
        if wanted - {"tcp1_loss", "tcp1_reorder"}:
            for _ in range(ROUNDS):
                for p in peers:
                    add(rows, p.name, measure(p, wanted))
        for _ in range(ROUNDS):
            for name, option in (("tcp1_loss", "loss"), ("tcp1_reorder", "reorder")):
                if name in wanted:
                    bad_link(peers[:2], name, option, rows)
    finally:
        sh(f"{X0} lab down", check=False)


def report(wanted, rows):
    out = []
    show = lambda v: f"{v:12.2f}" if v is not None else f"{'-':>12}"
    print(f"{'':14}{'unit':15}{'x0':>12}{'reference':>12}{'ratio':>12}  {'bare link':>12}  reference is")
    for name in [n for n in ROWS if n in wanted and n in rows]:
        unit, against = ROWS[name]
        med = {who: statistics.median(v) for who, v in rows[name].items()}
        ours, bare = med.get("x0"), med.get("bare")
        if f"{name} reference" in rows:
            ref = statistics.median(rows[f"{name} reference"]["x0"])
        else:
            ref = med.get("nebula") if against == NEBULA else bare
        ratio = ours / ref if ours and ref else None
        out.append(dict(name=name, value=ours, unit=unit, peer=against, peer_value=ref, ratio=ratio, bare=bare,
                        command=f"make bench ARGS={name}"))
        print(f"{name:14}{unit:15}{show(ours)}{show(ref)}{show(ratio)}  {show(bare)}  {against}")
    (ROOT / "build" / "bench.json").write_text(json.dumps(out, indent=1) + "\n")


def main():
    wanted = set(sys.argv[1:] or ROWS)
    if wanted - set(ROWS):
        sys.exit(f"unknown: {', '.join(sorted(wanted - set(ROWS)))}; known: {' '.join(ROWS)}")
    rows = {}
    programs(wanted, rows)
    if wanted - {"handshake_cpu", "control_1000"}:
        if os.geteuid():
            sys.exit("the benchmark makes network namespaces, which needs root")
        with tempfile.TemporaryDirectory() as d:
            network(wanted, rows, d)
    report(wanted, rows)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    main()
