/* Declarations that the files of the fast path share; lane.c describes the fast path. */
#ifndef STCP_LANE_H
#define STCP_LANE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* PROTOCOL.md section 2; a test compares these with protocol/wire.py. */
enum {
	HEADER_LEN = 4,
	TAG_LEN = 16,
	OVERHEAD = HEADER_LEN + TAG_LEN,
	NONCE_LEN = 12,
	MAX_FRAME = 65536,
	MAX_LENGTH = MAX_FRAME - HEADER_LEN,
	MAX_PLAINTEXT = MAX_FRAME - OVERHEAD,
};

/* wire_to_plain.py; a test compares them. */
enum { FRAMES_PER_TURN = 256 };

/* turns.py; a test compares them. */
enum {
	SMALL = 16384,               /* bytes of a read below which a connection may be small */
	SHARED_READ = 2 * MAX_FRAME, /* most bytes of one read while small connections are active */
	WEIGHT = 8,                  /* small reads over which their mean distance goes, about */
};
#define SHARED_FOR 5e-3 /* seconds for which a small connection counts as active */
#define BULK_FOR 0.1    /* seconds after a larger read for which a connection is not small */

typedef struct {
	PyObject_HEAD
	uint8_t *at;
	Py_ssize_t size;
} Span;

/* Offsets of the slots that the fast path uses: of Duplex, then of CipherDirection. */
struct layout {
	Py_ssize_t state, phase, queued, bulk_at, plain_ready, wire_ready, plain_to_end, wire_to_end, sent, received, active;
	Py_ssize_t partial, plain_left, wire_left, sealer, opener;
	Py_ssize_t n, check_at, aead;
};

struct leg {
	PyObject *duplex;  /* NULL: no leg has this descriptor */
	PyObject *handler; /* on_plain or on_wire, for every event that is not the common case */
	int other;         /* descriptor of the connection's other leg; -1: no leg, and `duplex` is a Watcher of pump.py */
	bool wire;
};

/* batch.c */
enum {
	MAX_KEPT = 8,         /* most writes that are kept: with more, the later events of the batch wait too long */
	MAX_KEPT_SIZE = 1024, /* bytes; a larger write is sent at once */
};

struct kept_write {
	PyObject *duplex;
	int to; /* descriptor */
	bool wire;
	size_t size;
	uint8_t bytes[MAX_KEPT_SIZE];
};

typedef struct {
	PyObject_HEAD
	int epoll, guest;
	PyObject *engine;
	PyTypeObject *duplex_type;
	PyObject *stream;                    /* Phase.STREAM */
	PyObject *open, *resetting, *closed; /* members of State */
	struct layout at;
	Py_buffer source, result;
	Py_ssize_t read_size; /* most bytes of one read; the engine sets it */
	double small_at;      /* time of the last small read */
	double small_gap;     /* mean time between two small reads, seconds */
	double time;          /* time of the batch under way, as in `now` */
	double found;         /* share of the last polls that found an event */
	int chances;          /* chances to poll since the last try, where polling does not pay */
	bool coarse;          /* the kernel has no wait that is shorter than a millisecond */
	int skipped;          /* events of the batch whose connections are queued for a turn */
	Span *nonce, *header, *input, *output;
	uint8_t nonce_bytes[NONCE_LEN];
	struct leg *legs; /* by descriptor */
	int room;         /* entries of `legs` */
	bool ran_python;  /* a Python method has run since the wait, so the engine may have work */
	PyObject *now;    /* time of the batch under way, seconds */
	double last, gap; /* time of the last batch, and seconds between the last two */
	bool keeping;     /* the batch has several events, so small writes are kept */
	int kept;         /* entries of `writes` in use */
	struct kept_write writes[MAX_KEPT];
} Lane;

/* span.c: a buffer object whose start and size can be changed */
extern PyTypeObject SpanType;
Span *span_new(uint8_t *at, Py_ssize_t size);

/* attributes.c: read and write attributes of Python objects, and call their methods. On false, an exception is set. */
extern PyObject *s_now, *s_queue, *s_encrypt_into, *s_decrypt_into, *s_up_read, *s_down_failed, *s_end_of_wire, *s_open_frames;
extern PyObject *s_plain_failed, *s_wire_broke, *s_sent_short, *s_delivered_short, *s_fail;
bool make_names(void);
bool find_slots(struct layout *at, PyTypeObject *duplex, PyTypeObject *direction);
bool set_slot(PyObject *object, Py_ssize_t offset, PyObject *value);
bool set_flag(PyObject *object, Py_ssize_t offset, bool flag);
bool set_number(PyObject *object, Py_ssize_t offset, uint64_t number);
bool add_to_slot(PyObject *object, Py_ssize_t offset, Py_ssize_t amount);
bool call(Lane *lane, PyObject *duplex, PyObject *name, PyObject *a, PyObject *b, PyObject *c);
bool call_with_errno(Lane *lane, PyObject *duplex, PyObject *name, int error);

static inline PyObject *get_slot(PyObject *object, Py_ssize_t offset)
{
	return *(PyObject **)((char *)object + offset); /* borrowed */
}

/* batch.c: send the small writes of one batch of events together */
bool keep_write(Lane *lane, PyObject *duplex, int to, bool wire, const uint8_t *from, size_t size);
bool has_kept_write(const Lane *lane, const PyObject *duplex);
bool send_kept_writes(Lane *lane);

/* transfer.c: move one buffer from one leg to the other */
bool relaying(const Lane *lane, PyObject *duplex);
bool alive(const Lane *lane, PyObject *duplex, int fd);
ssize_t transmit(int fd, const uint8_t *from, size_t size);
bool finish_send(Lane *lane, PyObject *duplex, bool wire, const uint8_t *from, size_t size, ssize_t done, int error);
bool up(Lane *lane, PyObject *duplex, int plain, int wire);
bool down(Lane *lane, PyObject *duplex, int wire, int plain);

/* event_loop.c: wait for events and serve them. `run` returns GUEST and SEEN, or -1 with an exception. */
enum { GUEST = 1, SEEN = 2 };
int run(Lane *lane, double wait, bool once);
bool report_bug(Lane *lane, PyObject *duplex);

#endif
