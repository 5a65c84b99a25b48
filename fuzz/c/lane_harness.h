/* What the files of the harness for the fast path share; lane.c describes the harness.
 *
 * lane.c         the input, the steps, and what is checked
 * lane_setup.c   the interpreter and its classes, and the start of a run
 * lane_duplex.c  the methods of Duplex, in C
 * lane_legs.c    sockets, epoll, clock and cipher
 */
#ifndef LANE_HARNESS_H
#define LANE_HARNESS_H

#include "../../stcp_proxy/relay/lane/lane.h"

#include "toy_cipher.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONNECTIONS = 2, FIRST_FD = 10, CAPACITY = 1 << 18, SCRATCH = 1 << 17, RESULT = SCRATCH + 1024 };

#define CHECK(what) ((what) ? (void)0 : broken(#what, __FILE__, __LINE__))
void broken(const char *what, const char *file, int line) __attribute__((noreturn));

struct leg_io {
	uint8_t in[CAPACITY], out[2 * CAPACITY];
	size_t in_at, in_end, out_end, room;
	bool eof;
	int error; /* of the next read or write */
	uint32_t news;
};

struct connection {
	PyObject *duplex;
	struct leg_io plain, wire;
	struct toy_keys peer_seals, peer_opens;
	uint8_t stream[CAPACITY], expected[CAPACITY];
	size_t stream_at, stream_end, expected_end;
	bool spoiled, ended_stream, said_reset, gone, hurt;
	size_t checked, frames_at, passed;
	bool fin_frame, fin_seen, bad_seen;
};

typedef struct {
	PyObject_HEAD
	uint8_t key[TOY_KEY];
} Aead;

/* lane.c */
extern struct connection all[CONNECTIONS];
extern uint8_t text_bytes[CAPACITY + MAX_FRAME]; /* text without a period, so that a byte out of its place shows */
uint8_t byte(void);
size_t amount(void);

/* lane_setup.c */
extern Lane *lane;
extern PyObject *lane_object, *state_open, *state_up_ended, *state_closed, *stream_phase, *ended_phase;
void start_python(void);
void start(struct connection *c);

/* lane_duplex.c */
extern PyMethodDef methods[], event_method;
void close_connection(struct connection *c);
void queue(struct connection *c);
void turn(struct connection *c);

/* lane_legs.c */
extern struct epoll_event pending[2 * CONNECTIONS]; /* what the next wait reports */
extern int pending_count;
extern double now; /* seconds */
extern PyTypeObject *aead_class;
extern PyType_Spec aead_spec;
struct leg_io *io_of(int fd);
struct connection *connection_of(PyObject *duplex);
ssize_t fuzz_recv(int fd, void *into, size_t room, int flags);
ssize_t fuzz_send(int fd, const void *from, size_t size, int flags);
PyObject *new_aead(const uint8_t *key);
uint64_t number(PyObject *object, Py_ssize_t at);
bool is_true(PyObject *object, Py_ssize_t at);
void set_direction(PyObject *direction, const struct toy_keys *k);
struct toy_keys keys_of(PyObject *direction);
void put_keys(PyObject *direction, const struct toy_keys *k);

#endif
