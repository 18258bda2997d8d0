#!/usr/bin/env python3
"""linkemu.py - a seeded lossy link between two network namespaces, without tc netem.

Makes two namespaces, one TUN device in each (10.77.0.1 and 10.77.0.2, fd77::1 and fd77::2)
and carries IP packets between them with loss, one-way delay, jitter, duplication,
reordering and corruption decided by a seeded generator: the same seed gives the same
decisions packet by packet.  (Kernels without CONFIG_NET_SCH_NETEM have no netem.)

  linkemu.py --ns srv cli --loss 1 --delay 10      # prints "ready", runs until SIGTERM, then removes all

Its last line is JSON: per direction (from the first namespace, from the second) the packets that came in, were
lost, went out, and those that came in as TFTP DATA (IPv4 UDP, opcode 3) with the bytes of file in them.
"""
import argparse, fcntl, heapq, json, os, random, select, signal, struct, subprocess, time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def sh(*c):
    subprocess.check_call(c)


def tun(name, ns, addr4, addr6, peer4, mtu):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22s", name.encode(), IFF_TUN | IFF_NO_PI, b""))
    sh("ip", "link", "set", name, "netns", ns)
    n = ["ip", "-n", ns]
    sh(*n, "link", "set", "lo", "up")
    sh(*n, "link", "set", name, "mtu", str(mtu), "txqueuelen", "10000")
    sh(*n, "addr", "add", addr4 + "/24", "dev", name)
    sh(*n, "-6", "addr", "add", addr6 + "/64", "dev", name, "nodad")
    sh(*n, "link", "set", name, "up")
    return fd


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ns", nargs=2, default=["tftps", "tftpc"])
    ap.add_argument("--loss", type=float, default=0, help="percent, each direction")
    ap.add_argument("--delay", type=float, default=0, help="ms one way, each direction")
    ap.add_argument("--jitter", type=float, default=0, help="ms, uniform, each direction (reorders)")
    ap.add_argument("--dup", type=float, default=0, help="percent duplicated")
    ap.add_argument("--reorder", type=float, default=0, help="percent sent at once, without the delay")
    ap.add_argument("--corrupt", type=float, default=0, help="percent with one payload byte changed (the UDP checksum then drops it)")
    ap.add_argument("--mtu", type=int, default=1500)
    ap.add_argument("--rate", type=float, default=0, help="Mbit/s each direction, 0 = no limit")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    a_ns, b_ns = a.ns
    made, stop = [], []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    try:
        for ns in a.ns:
            sh("ip", "netns", "add", ns)
            made.append(ns)
        t = os.getpid() % 10000000
        fds = [tun(f"tA{t}", a_ns, "10.77.0.1", "fd77::1", "10.77.0.2", a.mtu), tun(f"tB{t}", b_ns, "10.77.0.2", "fd77::2", "10.77.0.1", a.mtu)]
        rnd = [random.Random(a.seed * 2), random.Random(a.seed * 2 + 1)]
        free = [0.0, 0.0]
        q, seq = [], 0
        stat = [{"in": 0, "lost": 0, "out": 0, "data": 0, "data_bytes": 0} for _ in range(2)]
        print("ready", flush=True)
        while not stop:
            now = time.monotonic()
            while q and q[0][0] <= now:
                _, _, out, p = heapq.heappop(q)
                try:
                    os.write(fds[out], p)
                    stat[1 - out]["out"] += 1
                except (BlockingIOError, OSError):
                    pass
            r, _, _ = select.select(fds, [], [], min(0.2, max(0, q[0][0] - time.monotonic())) if q else 0.2)
            now = time.monotonic()
            for fd in r:
                i = fds.index(fd)
                for _ in range(256):
                    try:
                        p = os.read(fd, 65536)
                    except (BlockingIOError, OSError):
                        break
                    g = rnd[i]
                    stat[i]["in"] += 1
                    if len(p) >= 32 and p[0] == 0x45 and p[9] == 17 and p[28] == 0 and p[29] == 3:
                        stat[i]["data"] += 1
                        stat[i]["data_bytes"] += len(p) - 32
                    x = g.random() * 100
                    if x < a.loss:
                        stat[i]["lost"] += 1
                        continue
                    d = a.delay / 1e3
                    if a.reorder and g.random() * 100 < a.reorder:
                        d = 0
                    elif a.jitter:
                        d += g.uniform(0, a.jitter) / 1e3
                    if a.corrupt and g.random() * 100 < a.corrupt and len(p) > 32:
                        k = g.randrange(28, len(p))
                        p = p[:k] + bytes([p[k] ^ (1 + g.randrange(255))]) + p[k + 1:]
                    at = now + d
                    if a.rate:
                        free[i] = max(free[i], now) + len(p) * 8 / (a.rate * 1e6)
                        at = free[i] + d
                    for _n in range(2 if a.dup and g.random() * 100 < a.dup else 1):
                        seq += 1
                        heapq.heappush(q, (at, seq, 1 - i, p))
        print(json.dumps(stat), flush=True)
    finally:
        for ns in made:
            subprocess.call(["ip", "netns", "del", ns])


if __name__ == "__main__":
    main()
