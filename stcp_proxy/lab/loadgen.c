/*
 * loadgen: the small load generator of the lab, and the echo server it talks to.
 *
 *   loadgen serve [port]                     echo server; prints its port
 *   loadgen rt    port n size seconds        n connections, one message of `size` bytes under way on each
 *   loadgen bulk  port n seconds             n connections, one direction, as fast as it goes
 *   loadgen conns port n seconds             n clients: connect, 256 B echo, close, again
 *   loadgen idle  port n                     n connections that say something once; held until standard input ends
 *
 * Instead of a port, `fds:3,4,5` names connected sockets that were inherited: then nothing is dialled (and `serve` accepts
 * nothing). Everything happens on 127.0.0.1 in one thread and one level-triggered epoll set, so that the generator costs the same
 * whatever it measures. Each mode prints one line of JSON. All times are in microseconds, `rate` is per second.
 *
 * The server echoes whatever it gets, except on a connection whose first eight bytes are SINK: there it counts, and answers eight
 * bytes of running total, big-endian, at once and then after every ACK_EVERY bytes. So the client knows what has *arrived*, not
 * what fits into the buffers on the way, and no mode depends on how a peer treats half-closed connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SINK "\xffSINK\xff\xff\xff"
#define SINK_LEN 8
#define ACK_EVERY (4u << 20)
#define SCRATCH (256u << 10)
#define EVENTS 256
#define WINDOW 32   /* connections being established at a time */
#define SOURCES 16  /* client addresses in `conns`: one has only 28,000 ports */
#define WARMUP 0.15 /* seconds before the clock starts */
#define HELLO 64    /* bytes of the message that establishes a connection */
#define PATIENCE 20 /* seconds without any event after which a run is given up */

enum state { CLOSED, CONNECTING, HELLO_SENT, READY, NEW, ECHO, SINKING };

struct conn {
	int fd;
	enum state state;
	uint64_t started;                 /* ns */
	uint64_t got, acked, first_acked; /* bytes */
	uint64_t first_at, last_at;       /* ns, of acknowledgements */
	uint32_t sent, received, sequence;
	unsigned char ack[8];
	unsigned char *message, *answer; /* client */
	unsigned char *pending;          /* server: what the socket did not take */
	size_t pending_len, pending_off;
};

static unsigned char scratch[SCRATCH];
static int epfd;

static void die(const char *what)
{
	fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *zeroed(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die("memory");
	return p;
}

/* -- latencies: 128 buckets to each power of two, so an error of at most 0.8 % --------------------------------------------- */

#define SUB 7
static uint64_t buckets[64 << SUB], samples, sum_ns, max_ns;
static uint64_t total; /* operations of the whole run, warm-up included: what its CPU time was spent on */

static unsigned bucket_of(uint64_t v)
{
	unsigned shift;

	if (v < (1u << SUB))
		return (unsigned)v;
	shift = 63u - (unsigned)__builtin_clzll(v) - SUB;
	return ((shift + 1) << SUB) + (unsigned)((v >> shift) & ((1u << SUB) - 1));
}

static double value_of(unsigned b)
{
	unsigned shift = b >> SUB;

	if (!shift)
		return b;
	return ((double)((1u << SUB) + (b & ((1u << SUB) - 1))) + 0.5) * (double)(1ull << (shift - 1));
}

static void record(uint64_t ns)
{
	buckets[bucket_of(ns)]++;
	samples++;
	sum_ns += ns;
	if (ns > max_ns)
		max_ns = ns;
}

static double percentile(double p)
{
	uint64_t rank = (uint64_t)(p * (double)samples), seen = 0;

	for (unsigned b = 0; b < (64u << SUB); b++)
		if ((seen += buckets[b]) > rank)
			return value_of(b) / 1e3;
	return (double)max_ns / 1e3;
}

static void report(const char *mode, unsigned n, unsigned size, double seconds, uint64_t errors)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	printf("{\"mode\":\"%s\",\"connections\":%u,\"size\":%u,\"seconds\":%.6f,\"total\":%llu,\"rate\":%.3f,"
	       "\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f,\"errors\":%llu,\"cpu\":%.4f}\n",
	       mode, n, size, seconds, (unsigned long long)total, (double)samples / seconds,
	       samples ? (double)sum_ns / (double)samples / 1e3 : 0.0, percentile(.5), percentile(.9), percentile(.99), percentile(.999),
	       (double)max_ns / 1e3, (unsigned long long)errors,
	       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}

/* -- sockets --------------------------------------------------------------------------------------------------------------- */

static void watch(int op, struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (epoll_ctl(epfd, op, c->fd, &ev))
		die("epoll_ctl");
}

static void prepare(int fd)
{
	int one = 1;

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		die("fcntl");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* a socketpair has none: no matter */
}

static struct sockaddr_in loopback(unsigned host, unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK + host) };
	return a;
}

/* Begin to connect from 127.0.0.(1 + source); false when the system refused at once. */
static bool dial(struct conn *c, unsigned port, unsigned source)
{
	struct sockaddr_in to = loopback(0, port), from = loopback(source, 0);
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket");
	prepare(c->fd);
	if (source) {
		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)))
			die("bind");
	}
	if (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS) {
		close(c->fd);
		c->state = CLOSED;
		return false;
	}
	c->state = CONNECTING;
	c->sent = c->received = 0;
	watch(EPOLL_CTL_ADD, c, EPOLLOUT);
	return true;
}

/* A target is a port, or fds:3,4,… */
struct target {
	unsigned port;
	const char *fds;
};

static struct target target_of(const char *text)
{
	struct target t = { 0, NULL };

	if (!strncmp(text, "fds:", 4))
		t.fds = text + 4;
	else
		t.port = (unsigned)atoi(text);
	return t;
}

static int next_fd(struct target *t)
{
	char *end;
	long fd = strtol(t->fds, &end, 10);

	if (end == t->fds) {
		errno = EBADF;
		die("fewer descriptors than connections");
	}
	t->fds = *end == ',' ? end + 1 : end;
	return (int)fd;
}

/* -- client: establish ------------------------------------------------------------------------------------------------------ */

static int wait_events(struct epoll_event *events)
{
	int n = epoll_wait(epfd, events, EVENTS, PATIENCE * 1000);

	if (n < 0 && errno != EINTR)
		die("epoll_wait");
	if (!n) {
		errno = ETIMEDOUT;
		die("nothing moved");
	}
	return n;
}

static void begin(struct conn *c, struct target *t)
{
	if (t->fds) {
		c->fd = next_fd(t);
		prepare(c->fd);
		c->state = CONNECTING;
		watch(EPOLL_CTL_ADD, c, EPOLLOUT);
	} else if (!dial(c, t->port, 0)) {
		die("connect");
	}
}

/* One event of a connection being established; true when it has become READY. */
static bool establish_one(struct conn *c, const void *hello, size_t len, size_t answer)
{
	ssize_t r;

	if (c->state == CONNECTING) {
		r = send(c->fd, hello, len, MSG_NOSIGNAL);
		if (r != (ssize_t)len)
			die("first message");
		c->state = HELLO_SENT;
		watch(EPOLL_CTL_MOD, c, EPOLLIN);
		return false;
	}
	r = recv(c->fd, scratch, answer - c->received, 0);
	if (r < 0 && errno == EAGAIN)
		return false;
	if (r <= 0) {
		if (!r)
			errno = ECONNRESET;
		die("first answer");
	}
	c->received += (uint32_t)r;
	if (c->received < answer)
		return false;
	c->received = c->sent = 0;
	c->state = READY;
	return true;
}

/* n connections through which one message has gone and come back, so that all handshakes are over. */
static struct conn *establish(struct target t, unsigned n, bool sink)
{
	struct conn *conns = zeroed(n, sizeof(*conns));
	struct epoll_event events[EVENTS];
	unsigned begun = 0, ready = 0;
	char hello[HELLO];

	memset(hello, 'h', sizeof(hello));
	memcpy(hello, &(uint32_t){ htobe32(HELLO - 4) }, 4); /* a whole message to a framed echo server, too */
	while (ready < n) {
		while (begun < n && begun - ready < WINDOW)
			begin(&conns[begun++], &t);
		for (int i = 0, k = wait_events(events); i < k; i++)
			ready += sink ? establish_one(events[i].data.ptr, SINK, SINK_LEN, SINK_LEN) :
					establish_one(events[i].data.ptr, hello, HELLO, HELLO);
	}
	return conns;
}

/* -- client: round trips ----------------------------------------------------------------------------------------------------- */

static void push_message(struct conn *c, unsigned size)
{
	ssize_t r = send(c->fd, c->message + c->sent, size - c->sent, MSG_NOSIGNAL);

	if (r < 0 && errno != EAGAIN)
		die("send");
	if (r > 0)
		c->sent += (uint32_t)r;
	if (c->sent < size)
		watch(EPOLL_CTL_MOD, c, EPOLLIN | EPOLLOUT);
}

static void start_message(struct conn *c, unsigned size, uint64_t at)
{
	c->sequence++;
	memcpy(c->message, &c->sequence, size < 4 ? size : 4);
	c->sent = c->received = 0;
	c->started = at;
	push_message(c, size);
}

/* One event in `rt`. The answer is compared whole with what was sent. */
static void turn(struct conn *c, uint32_t what, unsigned size, uint64_t from, uint64_t until)
{
	uint64_t at;
	ssize_t r;

	if (what & EPOLLOUT) {
		push_message(c, size);
		if (c->sent == size)
			watch(EPOLL_CTL_MOD, c, EPOLLIN);
	}
	if (!(what & ~(uint32_t)EPOLLOUT))
		return;
	r = recv(c->fd, c->answer + c->received, size - c->received, 0);
	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0) {
		if (!r)
			errno = ECONNRESET;
		die("connection lost");
	}
	c->received += (uint32_t)r;
	if (c->received < size)
		return;
	if (memcmp(c->answer, c->message, size)) {
		errno = EBADMSG;
		die("the answer differs from what was sent");
	}
	at = now();
	total++;
	if (c->started >= from && at <= until)
		record(at - c->started);
	start_message(c, size, at);
}

static void run_rt(struct target t, unsigned n, unsigned size, double seconds)
{
	struct conn *conns = establish(t, n, false);
	struct epoll_event events[EVENTS];
	uint64_t from, until;

	for (unsigned i = 0; i < n; i++) {
		conns[i].message = zeroed(size, 1);
		conns[i].answer = zeroed(size, 1);
		for (unsigned b = 0; b < size; b++)
			conns[i].message[b] = (unsigned char)(b * 31 + i * 7 + (b >> 8));
	}
	from = now() + (uint64_t)(WARMUP * 1e9);
	until = from + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < n; i++)
		start_message(&conns[i], size, now());
	while (now() < until)
		for (int i = 0, k = wait_events(events); i < k; i++)
			turn(events[i].data.ptr, events[i].events, size, from, until);
	report("rt", n, size, seconds, 0);
}

/* -- client: bulk ------------------------------------------------------------------------------------------------------------ */

static void read_ack(struct conn *c, uint64_t from)
{
	uint64_t count;
	ssize_t r = recv(c->fd, c->ack + c->received, 8 - c->received, 0);

	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0) {
		if (!r)
			errno = ECONNRESET;
		die("acknowledgement");
	}
	c->received += (uint32_t)r;
	if (c->received < 8)
		return;
	c->received = 0;
	memcpy(&count, c->ack, 8);
	c->acked = be64toh(count);
	c->last_at = now();
	if (c->last_at >= from && !c->first_at) {
		c->first_at = c->last_at;
		c->first_acked = c->acked;
	}
}

static void run_bulk(struct target t, unsigned n, double seconds)
{
	static unsigned char block[SCRATCH];
	struct conn *conns = establish(t, n, true);
	struct epoll_event events[EVENTS];
	uint64_t from = now() + (uint64_t)(WARMUP * 1e9), until = from + (uint64_t)(seconds * 1e9), bytes = 0;
	double rate = 0;

	for (unsigned b = 0; b < SCRATCH; b++)
		block[b] = (unsigned char)((b * 2654435761u) >> 24);
	for (unsigned i = 0; i < n; i++)
		watch(EPOLL_CTL_MOD, &conns[i], EPOLLIN | EPOLLOUT);
	while (now() < until)
		for (int i = 0, k = wait_events(events); i < k; i++) {
			struct conn *c = events[i].data.ptr;

			if ((events[i].events & EPOLLOUT) && send(c->fd, block, SCRATCH, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
				die("send");
			if (events[i].events & ~(uint32_t)EPOLLOUT)
				read_ack(c, from);
		}
	for (unsigned i = 0; i < n; i++) {
		struct conn *c = &conns[i];

		bytes += c->acked;
		if (c->last_at > c->first_at && c->first_at)
			rate += (double)(c->acked - c->first_acked) / ((double)(c->last_at - c->first_at) / 1e9);
	}
	printf("{\"mode\":\"bulk\",\"connections\":%u,\"seconds\":%.6f,\"total\":%llu,\"rate\":%.1f,\"errors\":0}\n", n, seconds,
	       (unsigned long long)bytes, rate);
}

/* -- client: new connections --------------------------------------------------------------------------------------------------- */

static uint64_t conn_errors;

static void redial(struct conn *c, unsigned port)
{
	static unsigned turn_of_source;

	do
		c->started = now();
	while (!dial(c, port, 1 + turn_of_source++ % SOURCES) && ++conn_errors < 100000);
}

static void conns_event(struct conn *c, unsigned port, uint64_t from, uint64_t until)
{
	static const unsigned char hello[256] = "connect, 256 B echo, close";
	uint64_t at;
	ssize_t r;

	if (c->state == CONNECTING) {
		if (send(c->fd, hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
			goto failed;
		c->state = HELLO_SENT;
		watch(EPOLL_CTL_MOD, c, EPOLLIN);
		return;
	}
	r = recv(c->fd, scratch, sizeof(hello) - c->received, 0);
	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0)
		goto failed;
	c->received += (uint32_t)r;
	if (c->received < sizeof(hello))
		return;
	at = now();
	total++;
	if (c->started >= from && at <= until)
		record(at - c->started);
	close(c->fd);
	redial(c, port);
	return;
failed:
	conn_errors++;
	close(c->fd);
	redial(c, port);
}

static void run_conns(struct target t, unsigned n, double seconds)
{
	struct conn *conns = zeroed(n, sizeof(*conns));
	struct epoll_event events[EVENTS];
	uint64_t from = now() + (uint64_t)(WARMUP * 1e9), until = from + (uint64_t)(seconds * 1e9);

	for (unsigned i = 0; i < n; i++)
		redial(&conns[i], t.port);
	while (now() < until)
		for (int i = 0, k = wait_events(events); i < k; i++)
			conns_event(events[i].data.ptr, t.port, from, until);
	report("conns", n, 256, seconds, conn_errors);
}

static void run_idle(struct target t, unsigned n)
{
	free(establish(t, n, false));
	printf("{\"mode\":\"idle\",\"connections\":%u,\"errors\":0}\n", n);
	fflush(stdout);
	while (read(0, scratch, SCRATCH) > 0)
		;
}

/* -- server ---------------------------------------------------------------------------------------------------------------------- */

static void drop(struct conn *c)
{
	close(c->fd);
	free(c->pending);
	free(c);
}

/* What was not taken is kept, and nothing is read until it is gone. */
static void keep(struct conn *c, const unsigned char *rest, size_t len)
{
	c->pending = zeroed(len, 1);
	memcpy(c->pending, rest, len);
	c->pending_len = len;
	c->pending_off = 0;
	watch(EPOLL_CTL_MOD, c, EPOLLOUT);
}

static bool flush_pending(struct conn *c)
{
	ssize_t r = send(c->fd, c->pending + c->pending_off, c->pending_len - c->pending_off, MSG_NOSIGNAL);

	if (r < 0)
		return errno == EAGAIN;
	c->pending_off += (size_t)r;
	if (c->pending_off == c->pending_len) {
		free(c->pending);
		c->pending = NULL;
		watch(EPOLL_CTL_MOD, c, EPOLLIN);
	}
	return true;
}

static bool count_in(struct conn *c, size_t n, bool greet)
{
	uint64_t count;

	c->got += n;
	if (!greet && c->got - c->acked < ACK_EVERY)
		return true;
	c->acked = c->got;
	count = htobe64(c->got);
	return send(c->fd, &count, 8, MSG_NOSIGNAL) == 8 || errno == EAGAIN;
}

static bool serve_one(struct conn *c, uint32_t what)
{
	ssize_t r, s;

	if (c->pending)
		return (what & EPOLLOUT) ? flush_pending(c) : false;
	r = recv(c->fd, scratch, SCRATCH, 0);
	if (r <= 0)
		return r < 0 && errno == EAGAIN;
	if (c->state == NEW) {
		c->state = r >= SINK_LEN && !memcmp(scratch, SINK, SINK_LEN) ? SINKING : ECHO;
		if (c->state == SINKING)
			return count_in(c, (size_t)r - SINK_LEN, true);
	}
	if (c->state == SINKING)
		return count_in(c, (size_t)r, false);
	s = send(c->fd, scratch, (size_t)r, MSG_NOSIGNAL);
	if (s < 0 && errno != EAGAIN)
		return false;
	if (s < r)
		keep(c, scratch + (s < 0 ? 0 : s), (size_t)(r - (s < 0 ? 0 : s)));
	return true;
}

static void welcome(int fd)
{
	struct conn *c = zeroed(1, sizeof(*c));

	c->fd = fd;
	c->state = NEW;
	prepare(fd);
	watch(EPOLL_CTL_ADD, c, EPOLLIN);
}

static int listen_on(unsigned port)
{
	struct sockaddr_in a = loopback(0, port);
	socklen_t len = sizeof(a);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 4096))
		die("listen");
	getsockname(fd, (struct sockaddr *)&a, &len);
	printf("{\"mode\":\"serve\",\"port\":%u}\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static void run_serve(struct target t)
{
	struct epoll_event events[EVENTS];
	struct conn listener = { .fd = -1 };
	int fd;

	if (t.fds) {
		while (*t.fds)
			welcome(next_fd(&t));
	} else {
		listener.fd = listen_on(t.port);
		watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
	}
	for (;;) {
		int k = epoll_wait(epfd, events, EVENTS, -1);

		for (int i = 0; i < k; i++) {
			struct conn *c = events[i].data.ptr;

			if (c != &listener) {
				if (!serve_one(c, events[i].events))
					drop(c);
				continue;
			}
			while ((fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
				welcome(fd);
		}
	}
}

static int usage(void)
{
	fputs("usage: loadgen serve [PORT] | rt PORT N SIZE SECONDS | bulk PORT N SECONDS | conns PORT N SECONDS | idle PORT N\n"
	      "PORT on 127.0.0.1, or fds:3,4,... for inherited sockets\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct target t = target_of(argc > 2 ? argv[2] : "0");
	unsigned n = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	const char *mode = argc > 1 ? argv[1] : "";

	epfd = epoll_create1(EPOLL_CLOEXEC);
	if (epfd < 0)
		die("epoll_create1");
	if (!strcmp(mode, "serve"))
		run_serve(t);
	else if (!strcmp(mode, "rt") && argc == 6 && n && atoi(argv[4]) > 0)
		run_rt(t, n, (unsigned)atoi(argv[4]), atof(argv[5]));
	else if (!strcmp(mode, "bulk") && argc == 5 && n)
		run_bulk(t, n, atof(argv[4]));
	else if (!strcmp(mode, "conns") && argc == 5 && n && !t.fds)
		run_conns(t, n, atof(argv[4]));
	else if (!strcmp(mode, "idle") && argc == 4 && n)
		run_idle(t, n);
	else
		return usage();
	return 0;
}
