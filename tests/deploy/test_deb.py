# SPDX-License-Identifier: Apache-2.0
"""The package: what is in it, whether it runs with nothing but itself, and installs and goes where a Debian is."""
import glob, json, os, re, shutil, subprocess
import pytest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(TOP, "build")
pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
ALWAYS = """etc/x0/x0.yaml usr/bin/x0 usr/lib/x0/x0-broker usr/lib/systemd/system/x0.service
 usr/lib/systemd/system/x0.socket usr/lib/systemd/system/x0-broker.service usr/lib/systemd/system/x0-issuer.service
 usr/lib/systemd/system/x0-issuer.socket usr/share/man/man1/x0.1.gz usr/share/man/man5/x0.yaml.5.gz
 usr/share/man/man8/x0-broker.8.gz usr/share/bash-completion/completions/x0 usr/share/zsh/vendor-completions/_x0
 usr/share/fish/vendor_completions.d/x0.fish usr/share/doc/x0/copyright usr/share/doc/x0/changelog.gz
 usr/share/doc/x0/libraries usr/share/doc/x0/x0.lua usr/lib/x0/libngtcp2.so.16
 usr/lib/x0/libngtcp2_crypto_ossl.so.0""".split()


def run(*argv, check=True, **kw):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, **kw)
    assert not check or r.returncode == 0, f"{argv}\n{r.stdout}{r.stderr}"
    return r


@pytest.fixture(scope="module")
def deb():
    run(f"{TOP}/tools/deb.sh", BUILD)
    found = glob.glob(f"{BUILD}/x0_*.deb")
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def root(deb, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("deb"))
    run("dpkg-deb", "-x", deb, d)
    run("dpkg-deb", "-e", deb, f"{d}/DEBIAN")
    return d


@pytest.fixture
def namespace():
    """In a plain chroot there is no mount whose propagation could be cut."""
    if run("unshare", "-m", "true", check=False).returncode:
        pytest.skip("no mount namespace of one's own here")


def whole(root):
    return bool(glob.glob(f"{root}/usr/lib/x0/ld-linux*"))


def test_files_and_sums(deb, root):
    files = {os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs}
    files = {f for f in files if not f.startswith("DEBIAN/")}
    assert not set(ALWAYS) - files
    more = {f for f in files - set(ALWAYS) if not re.fullmatch(r"usr/lib/x0/(lib|ld-linux)[\w.+-]+", f)}
    assert not more
    run("md5sum", "--quiet", "-c", "DEBIAN/md5sums", cwd=root)
    with open(f"{root}/DEBIAN/md5sums") as f:
        assert {x.split("  ", 1)[1].strip() for x in f} == files
    with open(f"{root}/DEBIAN/conffiles") as f:
        assert f.read() == "/etc/x0/x0.yaml\n"
    assert {x.split()[1] for x in run("dpkg-deb", "-c", deb).stdout.splitlines()} == {"root/root"}


def test_programs_name_the_package_s_own_places(root):
    for f in ("usr/bin/x0", "usr/lib/x0/x0-broker"):
        interp = re.search(r"interpreter: (\S+)\]", run("readelf", "-lW", f"{root}/{f}").stdout)[1]
        assert interp.startswith("/usr/lib/x0/") == whole(root)
        dyn = run("readelf", "-dW", f"{root}/{f}").stdout
        assert re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dyn) == ["/usr/lib/x0"]
    assert len(glob.glob(f"{root}/usr/lib/x0/libcrypto*")) == whole(root)


def test_runs_with_nothing_but_itself(root, tmp_path, namespace):
    if not whole(root):
        pytest.skip("here the distribution's libraries are used")
    bare = str(tmp_path / "root")
    shutil.copytree(root, bare)
    for d in ("proc", "dev", "tmp"):
        os.makedirs(f"{bare}/{d}")
    with open(f"{bare}/etc/passwd", "w") as f:
        f.write("root:x:0:0::/:/\nx0:x:990:990::/:/\nx0-issuer:x:991:991::/:/\n")

    def x0(*argv, check=True):
        # The mount goes with its namespace.
        return run("unshare", "-m", "sh", "-c", 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"', bare, *argv,
                   check=check, env={"PATH": os.environ["PATH"]})
    loader = glob.glob(f"{bare}/usr/lib/x0/ld-linux*")[0][len(bare):]
    for f in ("/usr/bin/x0", "/usr/lib/x0/x0-broker"):
        used = re.findall(r"(/\S+) \(0x", x0(loader, "--list", f).stdout)
        assert used and all(u.startswith("/usr/lib/x0/") for u in used)
    assert "OpenSSL 3.5" in x0("/usr/bin/x0", "version").stdout
    assert x0("/usr/lib/x0/x0-broker", "--version").stdout.startswith("x0-broker ")
    x0("/usr/bin/x0", "config", "check")
    doctor = json.loads(x0("/usr/bin/x0", "doctor", "--json", check=False).stdout)
    status = {c["name"]: c["status"] for c in doctor["checks"]}
    assert status["config"] == "ok" and status["daemon"] == "fail" and len(status) > 4, status
    # A mesh's beginning: keys, certificates, the owner of each directory.
    x0("/usr/bin/x0", "ca", "init", "--domain", "test.example", "--name", "node-a")
    assert os.stat(f"{bare}/var/lib/x0/node").st_uid == 990
    assert os.stat(f"{bare}/var/lib/x0/authority").st_uid == 991
    x0("/usr/bin/x0", "identity", "verify")


def test_installs_and_purges(deb, tmp_path, namespace):
    """On this machine's own root with a layer over it, which goes with the mount namespace."""
    script = r'''
set -e
mount -t tmpfs x0t "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay x0t -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root" || exit 77
mount -t proc proc "$1/root/proc"
mount -t tmpfs x0t "$1/root/run"
cp "$2" "$1/root/x0.deb"
cat >"$1/root/inside" <<'IN'
set -e
dpkg -i /x0.deb
getent passwd x0 x0-issuer
x0 version
x0 ca init --domain test.example --name node-a
stat -c '%U %a %n' /var/lib/x0 /var/lib/x0/node /var/lib/x0/authority
dpkg -i /x0.deb
dpkg --purge x0
test ! -e /usr/bin/x0
test ! -e /etc/x0/x0.yaml
test ! -e /var/lib/x0/node
test -e /var/lib/x0/authority
IN
exec chroot "$1/root" sh /inside'''
    r = run("unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), deb, check=False, env={"PATH": os.environ["PATH"]})
    if r.returncode == 77:
        pytest.skip("no overlay file system here")
    assert r.returncode == 0, r.stdout + r.stderr
    assert "x0-issuer 700 /var/lib/x0/authority" in r.stdout and "x0 700 /var/lib/x0/node" in r.stdout
    assert "root keys" in r.stderr
