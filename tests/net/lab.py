# SPDX-License-Identifier: Apache-2.0
"""Hosts as network namespaces x0t-<host> with the real binary; whatever an earlier run left is removed first."""
import contextlib, ctypes, hashlib, json, os, shutil, signal, socket, subprocess, tempfile, threading, time

BUILD = os.environ.get("X0_BUILD") or os.path.join(os.path.dirname(__file__), "..", "..", "build")
X0 = os.path.abspath(os.path.join(BUILD, "x0"))
PREFIX = "x0t-"
DOMAIN = "test.example"
USER = 64510
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv, check=True, timeout=30, **kw):
    if "input" not in kw:
        kw["stdin"] = subprocess.DEVNULL
    r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **kw)
    if check and r.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit status {r.returncode}\n{r.stdout}{r.stderr}")
    return r


def in_ns(ns, fn, *args):
    """Runs fn in a thread that entered the namespace; its result or exception is ours."""
    box = {}

    def body():
        try:
            with open(f"/run/netns/{ns}") as f:
                if _libc.setns(f.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            box["value"] = fn(*args)
        except BaseException as e:  # noqa: B902  handed to the caller
            box["error"] = e

    t = threading.Thread(target=body)
    t.start()
    t.join()
    if "error" in box:
        raise box["error"]
    return box["value"]


def wait_for(what, fn, seconds=10, every=0.01):
    """Polls fn until it is true; returns (its value, the seconds it took)."""
    t0 = time.monotonic()
    while True:
        v = fn()
        if v:
            return v, time.monotonic() - t0
        if time.monotonic() - t0 > seconds:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(every)


class Host:
    def __init__(self, lab, name, addr):
        self.lab, self.name, self.addr = lab, name, addr
        self.ns = PREFIX + name
        self.dir = os.path.join(lab.dir, name)
        self.conf = os.path.join(self.dir, "x0.yaml")
        self.run_dir = os.path.join(self.dir, "run")
        os.makedirs(self.dir)
        run("ip", "netns", "add", self.ns)
        run("ip", "-n", self.ns, "link", "set", "lo", "up")

    def config(self, extra="", peers=(), keep=True):
        text = f"trust_domain: {DOMAIN}\nname: {self.name}\nuser: \"{USER}\"\n" \
               f"state_dir: {self.dir}/state\nrun_dir: {self.run_dir}\n{extra}"
        if peers:
            text += "peers:\n" + "".join(
                f"  - {{name: {p.name}, endpoints: [\"{p.addr}:7430\"], keep: {str(keep).lower()}}}\n" for p in peers)
        with open(self.conf, "w") as f:
            f.write(text)
        return text

    def exec(self, *argv, **kw):
        return run("ip", "netns", "exec", self.ns, *argv, **kw)

    def x0(self, *argv, **kw):
        return self.exec(X0, "--config", self.conf, *argv, **kw)

    def start(self, *argv):
        """The same in the background; communicate() on it returns what it said."""
        return subprocess.Popen(["ip", "netns", "exec", self.ns, X0, "--config", self.conf, *argv],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def json(self, *argv, **kw):
        return json.loads(self.x0(*argv, "--json", **kw).stdout)

    def up(self):
        self.x0("up")

    def down(self):
        self.x0("down", check=False)

    def overlay(self):
        return self.json("status")["address"]

    def peer(self, other):
        for p in self.json("peers")["peers"]:
            if p["name"] == other.name:
                return p
        return None

    def linked(self, other):
        p = self.peer(other)
        return p and p["state"] == "up"

    def pid(self, what="daemon"):
        with open(os.path.join(self.run_dir, f"{what}.pid")) as f:
            return int(f.read().split()[0])

    def kill(self, what="daemon", sig=signal.SIGKILL):
        pid = self.pid(what)
        os.kill(pid, sig)
        wait_for(f"{what} to end", lambda: not os.path.exists(f"/proc/{pid}") or
                 open(f"/proc/{pid}/stat").read().split(")")[1].split()[0] == "Z", 5)

    def log(self, what="daemon"):
        with open(os.path.join(self.run_dir, f"{what}.log")) as f:
            return f.read()

    def metrics(self):
        def get():
            s = socket.create_connection(("127.0.0.1", 9430), 5)
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            out = b""
            while chunk := s.recv(65536):
                out += chunk
            return out.split(b"\r\n\r\n", 1)[1].decode()
        return in_ns(self.ns, get)

    def metric(self, name):
        for line in self.metrics().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def ping(self, addr, count=1, wait=1, interval=0.2):
        """Number of answers through the overlay."""
        r = self.exec("ping", "-n", "-c", str(count), "-W", str(wait), "-i", str(interval), addr, check=False)
        return r.stdout.count("bytes from")


class LabHost(Host):
    """A host of `x0 lab up`."""

    def __init__(self, name):
        self.name, self.ns, self.dir = name, "x0l-" + name, "/run/x0-lab/" + name
        self.conf, self.run_dir = self.dir + "/x0.yaml", self.dir + "/run"

    def reconfigure(self, extra):
        """The daemon starts again with more in its file."""
        self.down()
        with open(self.conf, "a") as f:
            f.write(extra)
        self.up()


def lab_links(*argv):
    """Both directions of `x0 lab link ...`, or of all links of the lab."""
    return json.loads(run(X0, "--json", "lab", *(("link",) + argv if argv else ("list",))).stdout)["links"]


class Lab:
    """Hosts on one link, 10.79.0.<n>, behind a bridge in a namespace of its own."""

    def __init__(self, names):
        self.dir = tempfile.mkdtemp(prefix="x0t-")
        os.chmod(self.dir, 0o755)
        self.hosts = []
        self.sw = PREFIX + "sw"
        run("ip", "netns", "add", self.sw)
        run("ip", "-n", self.sw, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.sw, "link", "set", "br0", "up")
        for i, n in enumerate(names, 1):
            self.add(n, i)

    def add(self, name, i):
        h = Host(self, name, f"10.79.0.{i}")
        run("ip", "link", "add", "u0", "netns", h.ns, "type", "veth", "peer", "name", f"p{i}", "netns", self.sw)
        run("ip", "-n", self.sw, "link", "set", f"p{i}", "master", "br0", "up")
        run("ip", "-n", h.ns, "addr", "add", f"{h.addr}/24", "dev", "u0")
        run("ip", "-n", h.ns, "link", "set", "u0", "up")
        self.hosts.append(h)
        return h

    def close(self):
        for h in self.hosts:
            with contextlib.suppress(Exception):
                h.down()
        cleanup()
        shutil.rmtree(self.dir, ignore_errors=True)


def cleanup():
    """Everything in our namespaces, and they themselves; also what a crashed run left."""
    names = [n for n in os.listdir("/run/netns") if n.startswith(PREFIX)] if os.path.isdir("/run/netns") else []
    for n in names:
        for pid in run("ip", "netns", "pids", n, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", n, check=False)
    for d in os.listdir(tempfile.gettempdir()):
        if d.startswith("x0t-") and names:
            shutil.rmtree(os.path.join(tempfile.gettempdir(), d), ignore_errors=True)


def mesh(lab, extra="", keep=True):
    """The first host becomes the authority, the others join by token; all are up and linked with all."""
    first = lab.hosts[0]
    for h in lab.hosts:
        h.config(extra, [p for p in lab.hosts if p is not h], keep)
    first.x0("ca", "init")
    first.up()
    for h in lab.hosts[1:]:
        token = first.x0("ca", "token", h.name, "--addr", f"{first.addr}:7430").stdout.strip()
        h.x0("join", token)
        h.up()
    if keep:
        for h in lab.hosts:
            for p in lab.hosts:
                if p is not h:
                    wait_for(f"{h.name} linked with {p.name}", lambda h=h, p=p: h.linked(p))
    return lab.hosts


class Capture:
    """Frames of one interface, in a thread, from now until stop()."""

    def __init__(self, host, ifname):
        self.frames = []

        def sock():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.bind((ifname, 0))
            s.settimeout(0.05)
            return s
        self.s = in_ns(host.ns, sock)
        self.on = True
        self.t = threading.Thread(target=self._loop)
        self.t.start()

    def _loop(self):
        while self.on:
            with contextlib.suppress(TimeoutError):
                self.frames.append(self.s.recv(65536))

    def stop(self):
        time.sleep(0.1)
        self.on = False
        self.t.join()
        self.s.close()
        return self.frames


class Flow:
    """Numbered datagrams at an even rate from one host to an address of another, until stop(); which arrived."""

    def __init__(self, sender, receiver, addr, rate, port=5002):
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET

        def listen():
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
            s.bind((addr, port))
            s.settimeout(0.2)
            return s
        self.rx = in_ns(receiver.ns, listen)
        self.tx = in_ns(sender.ns, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.to, self.rate, self.sent, self.got, self.on = (addr, port), rate, 0, [], True
        self.threads = [threading.Thread(target=f) for f in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _send(self):
        t0 = time.monotonic()
        while self.on:
            # Late is made up for: a machine that stood still must not lower the count.
            while self.on and self.sent < (time.monotonic() - t0) * self.rate:
                self.tx.sendto(self.sent.to_bytes(8, "big") + bytes(92), self.to)
                self.sent += 1
            time.sleep(0.001)

    def _receive(self):
        # Until nothing comes any more.
        while True:
            try:
                self.got.append(int.from_bytes(self.rx.recv(200)[:8], "big"))
            except TimeoutError:
                if not self.on:
                    return

    def stop(self):
        """(sent, numbers lost, numbers that came twice)"""
        self.on = False
        for t in self.threads:
            t.join()
        self.tx.close()
        self.rx.close()
        return self.sent, sorted(set(range(self.sent)) - set(self.got)), len(self.got) - len(set(self.got))


def transfer(sender, receiver, addr, size=8 << 20, port=5001, seconds=20):
    """Bytes through TCP over the overlay; both ends' SHA-256, and the seconds it took."""
    data = os.urandom(1 << 20) * (size >> 20)
    got = {}

    def listen():
        s = socket.create_server((addr, port), family=socket.AF_INET6)
        s.settimeout(seconds)
        return s
    server = in_ns(receiver.ns, listen)

    def receive():
        c, _ = server.accept()
        h = hashlib.sha256()
        while chunk := c.recv(1 << 16):
            h.update(chunk)
        got["hash"] = h.hexdigest()
        c.close()

    def send():
        c = socket.create_connection((addr, port), 10)
        c.settimeout(seconds)
        c.sendall(data)
        c.close()
    t = threading.Thread(target=receive)
    t.start()
    t0 = time.monotonic()
    in_ns(sender.ns, send)
    t.join(seconds)
    server.close()
    return hashlib.sha256(data).hexdigest(), got.get("hash"), time.monotonic() - t0
