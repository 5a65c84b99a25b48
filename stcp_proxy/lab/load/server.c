/*
 * server.c: the echo server. On a connection that begins with SINK it counts bytes and echoes none.
 */
#include "load.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void drop(struct conn *c)
{
	close(c->fd);
	free(c->pending);
	free(c);
}

/* Keep the remainder of a short write, and stop reading until it is written. */
static void keep(struct conn *c, const unsigned char *rest, size_t len)
{
	c->pending = zeroed(len, 1);
	memcpy(c->pending, rest, len);
	c->pending_len = len;
	c->pending_off = 0;
	watch(EPOLL_CTL_MOD, c, EPOLLOUT);
}

/* Write the remainder. Returns false when the connection is broken. */
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

/* Count n bytes, and send the count when it is due or with `greet`. Returns false when the connection is broken. */
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

/* Handle an event of a connection. Returns false at its end. */
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

/* Serve a new socket. */
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

void run_serve(struct target t)
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
