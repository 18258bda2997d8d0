/* flood.c - RRQs with forged source addresses and ports, at a steady rate, from a raw socket (root; IPv4).
 *
 * The sources are random addresses of a /16.  Let that network lead nowhere, so that the answers vanish as they would
 * on their way to machines that are switched off; bench.py does it in a network namespace of its own.
 * Prints one JSON line when it ends (after -T seconds, or on SIGTERM).
 * Build: cc -O2 -o flood flood.c  (bench.py does it)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64

static volatile sig_atomic_t stop;

static void on_signal(int n)
{
	(void)n;
	stop = 1;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int ac, char **av)
{
	const char *host = "127.0.0.1", *net = "10.99.0.0", *file = "f";
	unsigned port = 69, rate = 20000, seed = 1;
	double seconds = 10;
	int o;
	while ((o = getopt(ac, av, "h:p:f:R:T:n:s:")) != -1) switch (o) {
	case 'h': host = optarg; break;
	case 'p': port = atoi(optarg); break;
	case 'f': file = optarg; break;
	case 'R': rate = atoi(optarg); break;
	case 'T': seconds = atof(optarg); break;
	case 'n': net = optarg; break;
	case 's': seed = atoi(optarg); break;
	default:
		fprintf(stderr, "usage: flood -h HOST -p PORT -f FILE -R REQUESTS_PER_SECOND -T SECONDS -n SOURCES.0.0 -s SEED\n");
		return 2;
	}
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), size = 4 << 20;
	if (fd < 0) { perror("raw socket"); return 2; }
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(host) };
	static unsigned char p[BATCH][600];
	struct mmsghdr mm[BATCH];
	struct iovec iov[BATCH];
	size_t n = 0;
	for (int i = 0; i < BATCH; i++) {
		unsigned char *d = p[i] + sizeof(struct iphdr) + sizeof(struct udphdr);
		n = 0;
		d[n++] = 0;
		d[n++] = 1;
		n += snprintf((char *)d + n, 256, "%s", file) + 1;
		memcpy(d + n, "octet\0blksize\0001468\0windowsize\00064", 33);
		n += 33;
		struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .daddr = to.sin_addr.s_addr,
			.tot_len = htons(sizeof(struct iphdr) + sizeof(struct udphdr) + n) };
		struct udphdr udp = { .dest = htons(port), .len = htons(sizeof(struct udphdr) + n) };
		memcpy(p[i], &ip, sizeof ip);
		memcpy(p[i] + sizeof ip, &udp, sizeof udp);
		iov[i] = (struct iovec){ p[i], sizeof ip + sizeof udp + n };
		memset(&mm[i], 0, sizeof mm[i]);
		mm[i].msg_hdr = (struct msghdr){ .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	unsigned long long sent = 0, missed = 0;
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
	double t0 = now();
	while (!stop && now() - t0 < seconds) {
		unsigned long long due = (unsigned long long)((now() - t0) * rate);
		while (sent + missed < due && !stop) {
			unsigned k = due - sent - missed < BATCH ? due - sent - missed : BATCH;
			for (unsigned i = 0; i < k; i++) {
				x ^= x << 13; x ^= x >> 7; x ^= x << 17;
				struct in_addr a = { htonl((ntohl(inet_addr(net)) & 0xffff0000u) | (uint32_t)(x & 0xffff)) };
				uint16_t port = htons(1024 + (x >> 16) % 64000);
				memcpy(p[i] + 12, &a, 4);
				memcpy(p[i] + sizeof(struct iphdr), &port, 2);
			}
			int r = sendmmsg(fd, mm, k, 0);
			if (r < 0) { if (!sent) { perror("send"); return 2; } missed++; } else sent += r;
		}
		struct timespec nap = { 0, 500000 };
		nanosleep(&nap, 0);
	}
	double t = now() - t0;
	printf("{\"sent\":%llu,\"missed\":%llu,\"seconds\":%.3f,\"rate\":%.0f}\n", sent, missed, t, sent / t);
	return 0;
}
