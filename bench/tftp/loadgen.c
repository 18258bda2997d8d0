/* loadgen.c - black-box TFTP load client (RRQ and WRQ) for any server.
 *
 * RFC 1350 + 2347/2348/2349/7440, octet mode, one epoll thread, N transfers in
 * flight.  Block numbers roll over 65535 -> 0.  Prints one JSON line.
 * Build: cc -O2 -o loadgen loadgen.c  (bench.py does it)
 *
 * With -V the payload is verified: the file must have been made by mkpattern
 * (8-byte little-endian words, word i == i ^ 0x5bd1e995), so every block's
 * first and last whole word is checked against its offset.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXPKT 65536
#define BATCH 32
#define KEY 0x5bd1e995ull

enum { ST_IDLE, ST_REQ, ST_DATA, ST_DONE, ST_FAIL };

struct cl {
	int fd, state, connected;
	unsigned blk, win;
	uint64_t next;      /* RRQ: next block expected; WRQ: first unacked block */
	uint64_t off;       /* RRQ: bytes received in order */
	unsigned inwin;
	int gapacked, retries;
	double t0, tl;      /* start, last progress or send */
	long long tsize;
	uint64_t sent_hi;   /* WRQ: highest block sent + 1 */
	unsigned gen;       /* transfers that this slot has had: a batch of packets belongs to one of them */
};

static struct sockaddr_storage srv;
static socklen_t srvlen;
static const char *host = "127.0.0.1", *port = "69", *file = "f";
static unsigned blk = 512, win = 1, nclients = 1;
static unsigned long total = 1;
static int tmo_ms = 1000, maxretry = 8, verify, upload, want_tsize = 1, per_file, spread;
static double deadline = 300;
static uint64_t upsize = 1 << 20;
static struct cl *C;
static double *lat;
static unsigned long ndone, nfail, nstart, ndup, ngap, nto, npkt, noack, nverr, nacks;
static uint64_t bytes;
static char lasterr[256];
static unsigned char rb[BATCH][MAXPKT];
static unsigned char upbuf[MAXPKT + 8];
static uint64_t pattern[MAXPKT / 8 + 2];
static int ep;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void xsend(struct cl *c, const void *p, size_t n)
{
	if (c->connected)
		(void)!send(c->fd, p, n, 0);
	else
		(void)!sendto(c->fd, p, n, 0, (struct sockaddr *)&srv, srvlen);
}

static void ack(struct cl *c, uint64_t b)
{
	unsigned char p[4] = { 0, 4, (unsigned char)(b >> 8), (unsigned char)b };
	nacks++;
	xsend(c, p, 4);
}

static size_t opt(unsigned char *p, const char *k, unsigned long v)
{
	size_t n = sprintf((char *)p, "%s", k) + 1;
	n += sprintf((char *)p + n, "%lu", v) + 1;
	return n;
}

static void sendreq(struct cl *c)
{
	unsigned char p[1024];
	size_t n = 2;
	long id = c - C;
	p[0] = 0;
	p[1] = upload ? 2 : 1;
	if (per_file || upload)
		n += sprintf((char *)p + n, "%s.%ld", file, id) + 1;
	else
		n += sprintf((char *)p + n, "%s", file) + 1;
	n += sprintf((char *)p + n, "octet") + 1;
	if (want_tsize)
		n += opt(p + n, "tsize", upload ? upsize : 0);
	if (blk != 512)
		n += opt(p + n, "blksize", blk);
	if (win != 1)
		n += opt(p + n, "windowsize", win);
	c->tl = now();
	(void)!sendto(c->fd, p, n, 0, (struct sockaddr *)&srv, srvlen);
}

static void start(struct cl *c)
{
	int fd = socket(srv.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int sz = 8 << 20;
	unsigned gen = c->gen + 1;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	memset(c, 0, sizeof *c);
	c->fd = fd;
	c->gen = gen;
	if (fd < 0) { perror("socket"); exit(2); }
	if (spread) {
		/* 127.64.0.1 and up: as many clients, as many addresses */
		struct sockaddr_in me = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f400001u + (unsigned)(c - C)) };
		if (bind(fd, (struct sockaddr *)&me, sizeof me)) { perror("bind"); exit(2); }
	}
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &sz, sizeof sz))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &sz, sizeof sz);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) { perror("epoll"); exit(2); }
	c->state = ST_REQ;
	c->blk = 512;
	c->win = 1;
	c->next = 1;
	c->sent_hi = 1;
	c->t0 = now();
	nstart++;
	sendreq(c);
}

static void finish(struct cl *c, int ok, const char *why)
{
	double t = now();
	if (ok) {
		lat[ndone++] = t - c->t0;
	} else {
		nfail++;
		if (why) snprintf(lasterr, sizeof lasterr, "%s", why);
	}
	close(c->fd);
	c->fd = -1;
	c->state = ok ? ST_DONE : ST_FAIL;
	if (nstart < total)
		start(c);
}

static int word_ok(const unsigned char *d, uint64_t off)
{
	uint64_t w;
	memcpy(&w, d, 8);
	return w == ((off >> 3) ^ KEY);
}

static int check(const unsigned char *d, size_t n, uint64_t off)
{
	size_t a = (8 - (off & 7)) & 7, z;
	if (n < 16) return 1;
	if (!word_ok(d + a, off + a)) return 0;
	z = n - 8 - ((off + n) & 7);
	return word_ok(d + z, off + z);
}

static void upwindow(struct cl *c, int resend)
{
	/* send [next, next+win) ; the last block is upsize/blk + 1 */
	uint64_t last = upsize / c->blk + 1, b;
	uint64_t from = resend ? c->next : c->sent_hi;
	for (b = from; b < c->next + c->win && b <= last; b++) {
		uint64_t off = (b - 1) * c->blk, n = upsize - off;
		if (n > c->blk) n = c->blk;
		upbuf[0] = 0; upbuf[1] = 3;
		upbuf[2] = (unsigned char)(b >> 8); upbuf[3] = (unsigned char)b;
		if (verify) {
			uint64_t word = off >> 3, words = ((off & 7) + n + 7) >> 3;
			for (uint64_t i = 0; i < words; i++) pattern[i] = (word + i) ^ KEY;
			memcpy(upbuf + 4, (unsigned char *)pattern + (off & 7), n);
		}
		xsend(c, upbuf, 4 + n);
		npkt++;
	}
	if (b > c->sent_hi) c->sent_hi = b;
	c->tl = now();
}

static void oack(struct cl *c, unsigned char *p, size_t n)
{
	size_t i = 2;
	noack++;
	while (i < n) {
		char *k = (char *)p + i;
		size_t kl = strnlen(k, n - i);
		if (i + kl + 1 >= n) break;
		char *v = k + kl + 1;
		size_t vl = strnlen(v, n - i - kl - 1);
		if (!strcasecmp(k, "blksize")) c->blk = atoi(v);
		else if (!strcasecmp(k, "windowsize")) c->win = atoi(v);
		else if (!strcasecmp(k, "tsize")) c->tsize = atoll(v);
		i += kl + vl + 2;
	}
}

static void pkt(struct cl *c, unsigned char *p, size_t n, struct sockaddr_storage *from, socklen_t fl)
{
	unsigned op, b;
	if (n < 4) return;
	op = p[0] << 8 | p[1];
	b = p[2] << 8 | p[3];
	if (!c->connected) {
		if (connect(c->fd, (struct sockaddr *)from, fl) == 0) c->connected = 1;
	}
	npkt++;
	if (op == 5) {
		char m[200];
		p[n - 1] = 0;
		snprintf(m, sizeof m, "ERROR %u %.150s", b, n > 4 ? (char *)p + 4 : "");
		for (char *q = m; *q; q++) /* it goes into JSON */
			if (*q == '"' || *q == '\\' || (unsigned char)*q < ' ' || (unsigned char)*q > '~') *q = '?';
		finish(c, 0, m);
		return;
	}
	c->retries = 0;
	if (upload) {
		uint64_t last;
		if (op == 6 && c->state == ST_REQ) { oack(c, p, n); c->state = ST_DATA; c->next = 1; upwindow(c, 1); return; }
		if (op != 4) return;
		if (c->state == ST_REQ) { if (b) return; c->state = ST_DATA; upwindow(c, 1); return; }
		last = upsize / c->blk + 1;
		{
			/* b is the 16-bit image of an acked block in [next-1, sent_hi-1] */
			uint64_t base = c->next - 1;
			uint16_t d = (uint16_t)(b - (uint16_t)base);
			uint64_t acked = base + d;
			if (acked >= c->sent_hi || d > 40000) { ndup++; return; }
			if (d == 0) { ndup++; if (c->win > 1) upwindow(c, 1); return; }
			c->next = acked + 1;
			if (acked >= last) { bytes += upsize; finish(c, 1, 0); return; }
			if (acked + 1 < c->sent_hi) { ngap++; upwindow(c, 1); } else upwindow(c, 0);
		}
		return;
	}
	if (op == 6) {
		if (c->state != ST_REQ) return;
		oack(c, p, n);
		c->state = ST_DATA;
		c->tl = now();
		ack(c, 0);
		return;
	}
	if (op != 3) return;
	if (c->state == ST_REQ) c->state = ST_DATA;
	{
		uint16_t e = (uint16_t)c->next;
		if (b == e) {
			size_t d = n - 4;
			if (verify && !check(p + 4, d, c->off)) nverr++;
			c->off += d;
			bytes += d;
			c->next++;
			c->inwin++;
			c->gapacked = 0;
			if (d < c->blk) {
				ack(c, c->next - 1);
				if (c->tsize && (uint64_t)c->tsize != c->off) nverr++;
				finish(c, 1, 0);
				return;
			}
			if (c->inwin >= c->win) {
				c->inwin = 0;
				ack(c, c->next - 1);
				c->tl = now();
			}
		} else if ((int16_t)(b - e) > 0) {
			ngap++;
			if (!c->gapacked) {
				c->gapacked = 1;
				c->inwin = 0;
				ack(c, c->next - 1);
				c->tl = now();
			}
		} else {
			ndup++;
			if (b == (uint16_t)(e - 1)) { c->inwin = 0; ack(c, c->next - 1); }
		}
	}
}

static int cmpd(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

int main(int ac, char **av)
{
	int o;
	struct addrinfo h = { .ai_socktype = SOCK_DGRAM }, *ai;
	while ((o = getopt(ac, av, "h:p:f:b:w:c:n:t:r:T:VuS:NPA")) != -1) switch (o) {
	case 'h': host = optarg; break;
	case 'p': port = optarg; break;
	case 'f': file = optarg; break;
	case 'b': blk = atoi(optarg); break;
	case 'w': win = atoi(optarg); break;
	case 'c': nclients = atoi(optarg); break;
	case 'n': total = atol(optarg); break;
	case 't': tmo_ms = atoi(optarg); break;
	case 'r': maxretry = atoi(optarg); break;
	case 'T': deadline = atof(optarg); break;
	case 'V': verify = 1; break;
	case 'u': upload = 1; break;
	case 'S': upsize = atoll(optarg); break;
	case 'N': want_tsize = 0; break;
	case 'P': per_file = 1; break;
	case 'A': spread = 1; break;
	default:
		fprintf(stderr, "usage: loadgen -h HOST -p PORT -f FILE -b BLKSIZE -w WINDOW -c CLIENTS -n TRANSFERS\n"
			"  -t retransmit ms (1000)  -r retries (8)  -T overall seconds (300)  -V verify pattern\n"
			"  -u upload (WRQ) as FILE.<client>  -S bytes per upload  -N no tsize option  -P read FILE.<client>\n"
			"  -A each client from an address of its own, from 127.64.0.1 on (IPv4 loopback)\n");
		return 2;
	}
	if (getaddrinfo(host, port, &h, &ai)) { fprintf(stderr, "bad host\n"); return 2; }
	memcpy(&srv, ai->ai_addr, ai->ai_addrlen);
	srvlen = ai->ai_addrlen;
	struct rlimit rl = { 65536, 65536 };
	if (setrlimit(RLIMIT_NOFILE, &rl) && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	if (nclients > total) nclients = total;
	C = calloc(nclients, sizeof *C);
	lat = calloc(total + 1, sizeof *lat);
	ep = epoll_create1(0);
	double t0 = now(), tscan = t0;
	for (unsigned i = 0; i < nclients; i++) start(&C[i]);
	struct mmsghdr mm[BATCH];
	struct iovec iov[BATCH];
	struct sockaddr_storage from[BATCH];
	struct epoll_event ev[64];
	while (ndone + nfail < total) {
		int k = epoll_wait(ep, ev, 64, 20);
		double t = now();
		for (int i = 0; i < k; i++) {
			struct cl *c = ev[i].data.ptr;
			int fd = c->fd;
			unsigned gen = c->gen;
			if (fd < 0) continue;
			for (int j = 0; j < BATCH; j++) {
				iov[j] = (struct iovec){ rb[j], MAXPKT };
				mm[j].msg_hdr = (struct msghdr){ .msg_name = &from[j], .msg_namelen = sizeof from[j], .msg_iov = &iov[j], .msg_iovlen = 1 };
			}
			int r = recvmmsg(fd, mm, BATCH, 0, 0);
			if (r < 0) continue;
			for (int j = 0; j < r && c->fd == fd && c->gen == gen; j++)
				pkt(c, rb[j], mm[j].msg_len, &from[j], mm[j].msg_hdr.msg_namelen);
		}
		if (t - tscan > 0.02) {
			tscan = t;
			for (unsigned i = 0; i < nclients; i++) {
				struct cl *c = &C[i];
				if (c->fd < 0 || t - c->tl < tmo_ms / 1000.0) continue;
				nto++;
				if (++c->retries > maxretry) { finish(c, 0, "timeout"); continue; }
				c->tl = t;
				if (c->state == ST_REQ) {
					sendreq(c);
				} else if (upload) {
					upwindow(c, 1);
				} else {
					c->inwin = 0;
					c->gapacked = 0;
					ack(c, c->next - 1);
				}
			}
		}
		if (t - t0 > deadline) break;
	}
	double el = now() - t0;
	struct rusage ru;
	getrusage(RUSAGE_SELF, &ru);
	qsort(lat, ndone, sizeof *lat, cmpd);
#define PC(q) (ndone ? lat[(size_t)((ndone - 1) * q)] : 0)
	printf("{\"seconds\":%.4f,\"bytes\":%llu,\"MBps\":%.2f,\"done\":%lu,\"failed\":%lu,\"unfinished\":%lu,"
	       "\"p50_ms\":%.2f,\"p95_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f,\"pkts\":%lu,\"acks\":%lu,\"dups\":%lu,\"gaps\":%lu,"
	       "\"timeouts\":%lu,\"oacks\":%lu,\"verify_errors\":%lu,\"blk\":%u,\"win\":%u,\"client_cpu_s\":%.2f,\"last_error\":\"%s\"}\n",
	       el, (unsigned long long)bytes, bytes / el / 1e6, ndone, nfail, total - ndone - nfail,
	       1e3 * PC(.5), 1e3 * PC(.95), 1e3 * PC(.99), 1e3 * PC(1.0), npkt, nacks, ndup, ngap, nto, noack, nverr,
	       C[0].blk, C[0].win,
	       ru.ru_utime.tv_sec + ru.ru_utime.tv_usec * 1e-6 + ru.ru_stime.tv_sec + ru.ru_stime.tv_usec * 1e-6, lasterr);
	return ndone == total && !nverr ? 0 : 1;
}
