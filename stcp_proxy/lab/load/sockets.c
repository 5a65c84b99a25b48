/*
 * sockets.c: connections to 127.0.0.1, and the targets of the command line.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void watch(int op, struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (epoll_ctl(epfd, op, c->fd, &ev))
		die("epoll_ctl");
}

void prepare(int fd)
{
	int one = 1;

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		die("fcntl");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on a socketpair, which needs none */
}

struct sockaddr_in loopback(unsigned host, unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK + host) };
	return a;
}

/* Begin to connect from 127.0.0.(1 + source). Returns false when the system refuses at once. */
bool dial(struct conn *c, unsigned port, unsigned source)
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

struct target target_of(const char *text)
{
	struct target t = { 0, NULL };

	if (!strncmp(text, "fds:", 4))
		t.fds = text + 4;
	else
		t.port = (unsigned)atoi(text);
	return t;
}

int next_fd(struct target *t)
{
	char *end;
	long fd = strtol(t->fds, &end, 10);

	if (end == t->fds) {
		errno = EBADF;
		die("the target names too few descriptors");
	}
	t->fds = *end == ',' ? end + 1 : end;
	return (int)fd;
}
