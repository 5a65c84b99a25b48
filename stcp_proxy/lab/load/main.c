/*
 * loadgen: the load generator of the lab, and the echo server that it sends to.
 *
 *   loadgen serve [port]                     echo server; prints its port
 *   loadgen rt    port n size seconds        n connections with one message of `size` bytes under way on each
 *   loadgen bulk  port n seconds             n connections, one direction, at full speed
 *   loadgen conns port n seconds             n clients: connect, 256 B echo, close, repeat
 *   loadgen idle  port n                     n connections with one message; held until standard input ends
 *
 * Instead of a port, `fds:3,4,5` names inherited connected sockets. Then nothing is dialled, and `serve` accepts nothing.
 * All of it runs on 127.0.0.1 in one thread with one level-triggered epoll set. So the generator costs the same for every pair that
 * it measures. Each mode prints one line of JSON. Latencies are in microseconds; `seconds` and `cpu` are seconds; `rate` is per second.
 *
 * The server echoes all bytes, except on a connection whose first eight bytes are SINK. There it counts the bytes, and sends the
 * count: eight bytes, big-endian, at once and then after every ACK_EVERY bytes. So the rate of `bulk` counts bytes that arrived, and
 * not bytes in buffers on the way. No mode depends on how a peer treats half-closed connections.
 */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

unsigned char scratch[SCRATCH];
int epfd;

void die(const char *what)
{
	fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void *zeroed(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die("cannot allocate memory");
	return p;
}

static int usage(void)
{
	fputs("usage: loadgen serve [PORT] | rt PORT N SIZE SECONDS | bulk PORT N SECONDS | conns PORT N SECONDS | idle PORT N\n"
	      "PORT is on 127.0.0.1, or fds:3,4,... names inherited sockets\n",
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
