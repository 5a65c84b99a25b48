/*
 * client.c: the modes that make load: round trips, one direction, new connections, idle connections.
 */
#include "load.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WINDOW 32   /* connections that are being established at a time */
#define SOURCES 16  /* client addresses in `conns`: each has only 28,000 ports */
#define WARMUP 0.15 /* seconds of load before latencies count */
#define HELLO 64    /* bytes of the first message of a connection */
#define PATIENCE 20 /* seconds without an event after which the run fails */

/* -- client: establish ------------------------------------------------------------------------------------------------------ */

/* Wait for events; returns their number. */
static int wait_events(struct epoll_event *events)
{
	int n = epoll_wait(epfd, events, EVENTS, PATIENCE * 1000);

	if (n < 0 && errno != EINTR)
		die("epoll_wait");
	if (!n) {
		errno = ETIMEDOUT;
		die("no connection made progress");
	}
	return n;
}

/* Begin one connection to the target, or take its next inherited socket. */
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

/* Handle an event of a connection that is being established. Returns true when it is READY. */
static bool establish_one(struct conn *c, const void *hello, size_t len, size_t answer)
{
	ssize_t r;

	if (c->state == CONNECTING) {
		r = send(c->fd, hello, len, MSG_NOSIGNAL);
		if (r != (ssize_t)len)
			die("cannot send the first message");
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
		die("no answer to the first message");
	}
	c->received += (uint32_t)r;
	if (c->received < answer)
		return false;
	c->received = c->sent = 0;
	c->state = READY;
	return true;
}

/* Make n connections. One message has gone through each and come back, so that all handshakes are over. */
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

/* Handle an event in the mode `rt`. The whole answer is compared with the message. */
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
		die("the connection ended before the whole answer");
	}
	c->received += (uint32_t)r;
	if (c->received < size)
		return;
	if (memcmp(c->answer, c->message, size)) {
		errno = EBADMSG;
		die("the answer differs from the message");
	}
	at = now();
	total++;
	if (c->started >= from && at <= until)
		record(at - c->started);
	start_message(c, size, at);
}

void run_rt(struct target t, unsigned n, unsigned size, double seconds)
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

/* Read a count of received bytes from the sink. The rate is taken from the first count after `from` to the last one. */
static void read_ack(struct conn *c, uint64_t from)
{
	uint64_t count;
	ssize_t r = recv(c->fd, c->ack + c->received, 8 - c->received, 0);

	if (r < 0 && errno == EAGAIN)
		return;
	if (r <= 0) {
		if (!r)
			errno = ECONNRESET;
		die("no count of received bytes");
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

void run_bulk(struct target t, unsigned n, double seconds)
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

/* Begin the next connection of a client. */
static void redial(struct conn *c, unsigned port)
{
	static unsigned turn_of_source;

	do
		c->started = now();
	while (!dial(c, port, 1 + turn_of_source++ % SOURCES) && ++conn_errors < 100000);
}

/* Handle an event in the mode `conns`: after a whole answer or a failure, begin the next connection. */
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

void run_conns(struct target t, unsigned n, double seconds)
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

void run_idle(struct target t, unsigned n)
{
	free(establish(t, n, false));
	printf("{\"mode\":\"idle\",\"connections\":%u,\"errors\":0}\n", n);
	fflush(stdout);
	while (read(0, scratch, SCRATCH) > 0)
		;
}
