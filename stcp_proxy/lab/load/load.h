/*
 * load.h: what the parts of the load generator share.
 */
#ifndef STCP_LOAD_H
#define STCP_LOAD_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define SINK "\xffSINK\xff\xff\xff"
#define SINK_LEN 8
#define ACK_EVERY (4u << 20)
#define SCRATCH (256u << 10)
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
	unsigned char *pending;          /* server: what the socket did not take */
	size_t pending_len, pending_off;
};

/* A target is a port, or fds:3,4,... */
struct target {
	unsigned port;
	const char *fds;
};

/* main.c */
extern unsigned char scratch[SCRATCH];
extern int epfd;
void die(const char *what);
uint64_t now(void);
void *zeroed(size_t n, size_t size);

/* latency.c */
extern uint64_t samples;
extern uint64_t total; /* operations of the whole run, warm-up included: what its CPU time was spent on */
void record(uint64_t ns);
void report(const char *mode, unsigned n, unsigned size, double seconds, uint64_t errors);

/* sockets.c */
void watch(int op, struct conn *c, uint32_t events);
void prepare(int fd);
struct sockaddr_in loopback(unsigned host, unsigned port);
bool dial(struct conn *c, unsigned port, unsigned source);
struct target target_of(const char *text);
int next_fd(struct target *t);

/* client.c */
void run_rt(struct target t, unsigned n, unsigned size, double seconds);
void run_bulk(struct target t, unsigned n, double seconds);
void run_conns(struct target t, unsigned n, double seconds);
void run_idle(struct target t, unsigned n);

/* server.c */
void run_serve(struct target t);

#endif
