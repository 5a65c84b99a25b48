/*
 * load.h: types, constants and functions that the files of the load generator share.
 */
#ifndef STCP_LOAD_H
#define STCP_LOAD_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define SINK "\xffSINK\xff\xff\xff" /* first bytes of a connection in the mode `bulk` */
#define SINK_LEN 8
#define ACK_EVERY (4u << 20) /* bytes after which the sink sends its count */
#define SCRATCH (256u << 10) /* bytes of one read */
#define EVENTS 256

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
	unsigned char *pending;          /* server: the remainder of a short write */
	size_t pending_len, pending_off;
};

/* A port on 127.0.0.1, or the text "3,4,..." with the descriptors of connected sockets. */
struct target {
	unsigned port;
	const char *fds;
};

/* main.c */
extern unsigned char scratch[SCRATCH];
extern int epfd;
void die(const char *what);          /* print the failure and errno, and end the process */
uint64_t now(void);                  /* monotonic clock, ns */
void *zeroed(size_t n, size_t size); /* as calloc, but never NULL */

/* latency.c */
extern uint64_t samples; /* latencies in the histogram */
extern uint64_t total;   /* operations of the whole run, with the warm-up */
void record(uint64_t ns);
/* Print the result as one line of JSON. */
void report(const char *mode, unsigned n, unsigned size, double seconds, uint64_t errors);

/* sockets.c */
void watch(int op, struct conn *c, uint32_t events);       /* epoll_ctl for a connection */
void prepare(int fd);                                      /* non-blocking, TCP_NODELAY */
struct sockaddr_in loopback(unsigned host, unsigned port); /* 127.0.0.(1 + host) */
bool dial(struct conn *c, unsigned port, unsigned source);
struct target target_of(const char *text);
int next_fd(struct target *t); /* the next inherited descriptor */

/* client.c */
void run_rt(struct target t, unsigned n, unsigned size, double seconds);
void run_bulk(struct target t, unsigned n, double seconds);
void run_conns(struct target t, unsigned n, double seconds);
void run_idle(struct target t, unsigned n);

/* server.c */
void run_serve(struct target t);

#endif
