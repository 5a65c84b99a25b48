/* Fuzzer of the engine's fast path (stcp_proxy/relay/lane/): frame bounds, splits, batches, short writes, calls of Python.
 *
 * All files of the fast path run in a real interpreter, with two connections on one Lane. Sockets, epoll and the cipher are stand-ins:
 * each read and write takes as much as the input says. Instead of Duplex there are slots of the same names and methods in C, which do the
 * work that the fast path leaves to Python.
 *
 * Invariants, checked after each step or at the end:
 * - The application gets a prefix of the text of authentic DATA frames; the peer opens every frame, and its text is a prefix of what the
 *   application wrote.
 * - A method gets the scratch as it was received, and counts that fit.
 * - No bytes are left behind: with room for everything, all that arrived passes.
 * - References are balanced.
 */
#include "../../stcp_proxy/relay/lane/lane.h"

#include "toy_cipher.h"

#include <stdio.h>
#include <stdlib.h>

PyMODINIT_FUNC PyInit__lane(void);

enum { CONNECTIONS = 2, FIRST_FD = 10, CAPACITY = 1 << 18, SCRATCH = 1 << 17, RESULT = SCRATCH + 1024 };

static void broken(const char *what, int line)
{
	fprintf(stderr, "BROKEN: %s (lane.c:%d)\n", what, line);
	if (PyErr_Occurred())
		PyErr_Print();
	abort();
}
#define CHECK(what) ((what) ? (void)0 : broken(#what, __LINE__))

/* -- the input ---- */

static const uint8_t *input;
static size_t input_left;

static uint8_t byte(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

static size_t amount(void)
{
	static const uint32_t common[] = {
		1, 2, 3, 4, 16, 19, 20, 21, 255, 1004, 1024, 1025, 16383, 16384, MAX_PLAINTEXT - 1, MAX_PLAINTEXT
	};
	uint8_t choice = byte();

	return choice < 16 ? common[choice] : choice < 252 ? choice : (size_t)(choice - 251) * 9173;
}

/* -- the legs ---- */

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

static struct connection all[CONNECTIONS];
static Lane *lane;
static PyObject *lane_object, *state_open, *state_up_ended, *state_closed, *stream_phase, *ended_phase;
static PyTypeObject *duplex_class, *direction_class, *aead_class;
static uint8_t text_bytes[CAPACITY + MAX_FRAME];
static bool draining;
static struct epoll_event pending[2 * CONNECTIONS];
static int pending_count;

static struct leg_io *io_of(int fd)
{
	CHECK(fd >= FIRST_FD && fd < FIRST_FD + 2 * CONNECTIONS);
	return (fd - FIRST_FD) % 2 ? &all[(fd - FIRST_FD) / 2].wire : &all[(fd - FIRST_FD) / 2].plain;
}

static struct connection *connection_of(PyObject *duplex)
{
	for (int i = 0; i < CONNECTIONS; i++) {
		if (all[i].duplex == duplex)
			return &all[i];
	}
	CHECK(!"a method of a known connection");
	return NULL;
}

ssize_t fuzz_recv(int fd, void *into, size_t room, int flags)
{
	struct leg_io *io = io_of(fd);
	size_t size = io->in_end - io->in_at;

	CHECK(!flags && room);
	if (io->error) {
		errno = io->error;
		return -1;
	}
	if (!size && io->eof)
		return 0;
	if (!size) {
		errno = EAGAIN;
		return -1;
	}
	size = size < room ? size : room;
	memcpy(into, io->in + io->in_at, size);
	io->in_at += size;
	return (ssize_t)size;
}

ssize_t fuzz_send(int fd, const void *from, size_t size, int flags)
{
	struct leg_io *io = io_of(fd);

	CHECK(flags == MSG_NOSIGNAL && size);
	if (io->error) {
		errno = EPIPE;
		return -1;
	}
	if (!io->room) {
		errno = EAGAIN;
		return -1;
	}
	size = size < io->room ? size : io->room;
	CHECK(io->out_end + size <= sizeof(io->out));
	memcpy(io->out + io->out_end, from, size);
	io->out_end += size;
	io->room -= size;
	return (ssize_t)size;
}

int fuzz_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	int count = pending_count;

	(void)epoll, (void)timeout;
	CHECK(count <= most);
	memcpy(events, pending, (size_t)count * sizeof(*events));
	pending_count = 0;
	return count;
}

int fuzz_sched_yield(void)
{
	return 0;
}

static double now = 1000;

int fuzz_clock_gettime(clockid_t clock, struct timespec *t)
{
	(void)clock;
	now += 1e-4;
	t->tv_sec = (time_t)now;
	t->tv_nsec = (long)((now - (double)t->tv_sec) * 1e9);
	return 0;
}

/* -- the cipher, as an object ---- */

typedef struct {
	PyObject_HEAD
	uint8_t key[TOY_KEY];
} Aead;

static bool get_views(PyObject *const *args, Py_ssize_t count, Py_buffer *views)
{
	static const int writable[] = { 0, 0, 0, 1 };

	CHECK(count == 4);
	for (int i = 0; i < 4; i++) {
		if (PyObject_GetBuffer(args[i], &views[i], writable[i] ? PyBUF_WRITABLE : PyBUF_SIMPLE))
			return false;
	}
	CHECK(views[0].len == TOY_NONCE && views[2].len == TOY_HEADER);
	return true;
}

static PyObject *encrypt_into(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	Py_buffer v[4];

	if (!get_views(args, count, v))
		return NULL;
	CHECK(v[3].len == v[1].len + TOY_TAG && v[1].len <= MAX_PLAINTEXT);
	memcpy(v[3].buf, v[1].buf, (size_t)v[1].len);
	toy_seal(((Aead *)self)->key, v[0].buf, v[2].buf, TOY_HEADER, v[3].buf, (size_t)v[1].len, (uint8_t *)v[3].buf + v[1].len);
	for (int i = 0; i < 4; i++)
		PyBuffer_Release(&v[i]);
	Py_RETURN_NONE;
}

static PyObject *decrypt_into(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	static uint8_t text[MAX_FRAME];
	Py_buffer v[4];
	bool fine;

	if (!get_views(args, count, v))
		return NULL;
	CHECK(v[1].len >= TOY_TAG && v[3].len == v[1].len - TOY_TAG && v[1].len <= MAX_LENGTH);
	memcpy(text, v[1].buf, (size_t)v[3].len);
	fine = toy_open(((Aead *)self)->key, v[0].buf, v[2].buf, TOY_HEADER, text, (size_t)v[3].len, (uint8_t *)v[1].buf + v[3].len);
	memcpy(v[3].buf, text, (size_t)v[3].len); /* also where the tag is wrong: then the content is undefined */
	for (int i = 0; i < 4; i++)
		PyBuffer_Release(&v[i]);
	if (fine)
		Py_RETURN_NONE;
	PyErr_SetString(PyExc_ValueError, "the tag is wrong");
	return NULL;
}

static PyMethodDef aead_methods[] = {
	{ "encrypt_into", (PyCFunction)(void (*)(void))encrypt_into, METH_FASTCALL, NULL },
	{ "decrypt_into", (PyCFunction)(void (*)(void))decrypt_into, METH_FASTCALL, NULL },
	{ NULL, NULL, 0, NULL },
};
static PyType_Slot aead_slots[] = { { Py_tp_methods, aead_methods }, { 0, NULL } };
static PyType_Spec aead_spec = { "toy.Aead", sizeof(Aead), 0, Py_TPFLAGS_DEFAULT, aead_slots };

static PyObject *new_aead(const uint8_t *key)
{
	Aead *aead = PyObject_New(Aead, aead_class);

	memcpy(aead->key, key, TOY_KEY);
	return (PyObject *)aead;
}

/* -- slots ---- */

static uint64_t number(PyObject *object, Py_ssize_t at)
{
	return PyLong_AsUnsignedLongLong(get_slot(object, at));
}

static bool is_true(PyObject *object, Py_ssize_t at)
{
	CHECK(PyBool_Check(get_slot(object, at)));
	return get_slot(object, at) == Py_True;
}

static void set_direction(PyObject *direction, const struct toy_keys *k, bool with_key)
{
	uint64_t interval = 1 << 20, from = k->n ? k->n : 1, next = (from + interval - 1) / interval * interval;

	set_number(direction, lane->at.n, k->n);
	if (!with_key)
		return;
	if (next < from)
		next = UINT64_MAX;
	set_number(direction, lane->at.check_at, next);
	set_slot(direction, lane->at.aead, new_aead(k->key));
}

/* The key and the number of a direction. */
static struct toy_keys keys_of(PyObject *direction)
{
	struct toy_keys k;

	memcpy(k.key, ((Aead *)get_slot(direction, lane->at.aead))->key, TOY_KEY);
	k.n = number(direction, lane->at.n);
	return k;
}

static void put_keys(PyObject *direction, const struct toy_keys *k)
{
	uint64_t check_at = number(direction, lane->at.check_at);

	set_number(direction, lane->at.n, k->n);
	if (k->n > check_at) { /* a frame was made behind a rekey */
		set_number(direction, lane->at.check_at, check_at > UINT64_MAX - (1 << 20) ? UINT64_MAX : check_at + (1 << 20));
		set_slot(direction, lane->at.aead, new_aead(k->key));
	}
}

/* -- what Python does: the methods of Duplex ---- */

static void close_connection(struct connection *c)
{
	c->gone = true;
	set_slot(c->duplex, lane->at.state, Py_NewRef(state_closed));
	for (int wire = 0; wire < 2; wire++) {
		PyObject *done = PyObject_CallMethod(lane_object, "forget", "i", FIRST_FD + 2 * (int)(c - all) + wire);

		Py_XDECREF(done);
	}
}

static void queue(struct connection *c)
{
	set_flag(c->duplex, lane->at.queued, true);
}

static void deliver(struct connection *c, const uint8_t *from, size_t size, bool wire)
{
	struct leg_io *io = wire ? &c->wire : &c->plain;
	Py_ssize_t left = wire ? lane->at.wire_left : lane->at.plain_left;
	PyObject *old = get_slot(c->duplex, left), *all_left;
	ssize_t done;

	if (old != Py_None) {
		all_left = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(old) + (Py_ssize_t)size);
		memcpy(PyBytes_AS_STRING(all_left), PyBytes_AS_STRING(old), (size_t)PyBytes_GET_SIZE(old));
		memcpy(PyBytes_AS_STRING(all_left) + PyBytes_GET_SIZE(old), from, size);
		set_slot(c->duplex, left, all_left);
		return;
	}
	done = size ? fuzz_send(FIRST_FD + 2 * (int)(c - all) + wire, from, size, MSG_NOSIGNAL) : 0;
	if (done < 0 && io->error) {
		close_connection(c);
		return;
	}
	done = done < 0 ? 0 : done;
	if (!wire)
		add_to_slot(c->duplex, lane->at.received, done);
	if ((size_t)done < size)
		set_slot(c->duplex, left, PyBytes_FromStringAndSize((const char *)from + done, (Py_ssize_t)size - done));
}

static void flush(struct connection *c, bool wire)
{
	Py_ssize_t left = wire ? lane->at.wire_left : lane->at.plain_left;
	PyObject *old = get_slot(c->duplex, left);

	if (old == Py_None)
		return;
	Py_INCREF(old);
	set_slot(c->duplex, left, Py_NewRef(Py_None));
	deliver(c, (uint8_t *)PyBytes_AS_STRING(old), (size_t)PyBytes_GET_SIZE(old), wire);
	Py_DECREF(old);
}

static void seal_and_send(struct connection *c, uint8_t type, const uint8_t *text, size_t size)
{
	static uint8_t frames[RESULT];
	PyObject *sealer = get_slot(c->duplex, lane->at.sealer);
	struct toy_keys k = keys_of(sealer);
	size_t filled = 0;

	do {
		size_t part = size < MAX_PLAINTEXT ? size : MAX_PLAINTEXT;

		memcpy(frames + filled + HEADER_LEN, text, part);
		if (!toy_seal_frame(&k, frames + filled, type, 0, part)) {
			close_connection(c);
			return;
		}
		put_keys(sealer, &k);
		filled += OVERHEAD + part;
		text += part;
		size -= part;
	} while (size);
	deliver(c, frames, filled, true);
}

/* Compare the source of the scratch with the bytes that the leg gave last. */
static void check_scratch(const struct leg_io *io, size_t size)
{
	CHECK(size <= io->in_at && size <= SCRATCH);
	CHECK(!memcmp(lane->source.buf, io->in + io->in_at - size, size));
}

static PyObject *m_queue(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	(void)self;
	CHECK(count == 1);
	queue(connection_of(args[0]));
	Py_RETURN_NONE;
}

static PyObject *m_up_read(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct connection *c = connection_of(args[0]);
	size_t size = PyLong_AsSize_t(args[1]);
	bool more;

	(void)self;
	CHECK(count == 3 && PyBool_Check(args[2]));
	if (!size) {
		CHECK(c->plain.eof && c->plain.in_at == c->plain.in_end);
		set_flag(c->duplex, lane->at.plain_ready, false);
		set_slot(c->duplex, lane->at.state, Py_NewRef(state_up_ended));
		seal_and_send(c, 1, text_bytes, 0);
		Py_RETURN_NONE;
	}
	check_scratch(&c->plain, size);
	more = args[2] == Py_True || is_true(c->duplex, lane->at.plain_to_end);
	set_flag(c->duplex, lane->at.plain_ready, more);
	if (more)
		queue(c);
	add_to_slot(c->duplex, lane->at.sent, (Py_ssize_t)size);
	seal_and_send(c, 0, lane->source.buf, size);
	Py_RETURN_NONE;
}

/* Open the frames of one turn, from `at` on, as Duplex does. */
static PyObject *m_open_frames(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	static uint8_t frame[MAX_FRAME];
	struct connection *c = connection_of(args[0]);
	PyObject *opener = get_slot(c->duplex, lane->at.opener);
	struct toy_keys k = keys_of(opener);
	size_t size = PyLong_AsSize_t(args[1]), at = count > 2 ? PyLong_AsSize_t(args[2]) : 0,
	       filled = count > 3 ? PyLong_AsSize_t(args[3]) : 0;
	const uint8_t *source = lane->source.buf;
	uint8_t *result = lane->result.buf;
	bool bad = false, reset = false;

	(void)self;
	CHECK((count == 2 || count == 4) && at <= size && filled <= at);
	check_scratch(&c->wire, size);
	for (int i = 0; i < FRAMES_PER_TURN && size - at >= HEADER_LEN && !reset; i++) {
		size_t length = (size_t)source[at + 2] << 8 | source[at + 3], text = length - TAG_LEN;

		bad = source[at + 1] || source[at] > 2 || length < TAG_LEN || length > MAX_LENGTH;
		if (bad || size - at < HEADER_LEN + length)
			break;
		memcpy(frame, source + at, HEADER_LEN + length);
		bad = !toy_open_frame(&k, frame, text) || (c->fin_seen && frame[0] != 2) || (frame[0] == 1 && text);
		if (bad)
			break;
		put_keys(opener, &k);
		at += HEADER_LEN + length;
		if (frame[0] == 0) {
			CHECK(filled + text <= RESULT);
			memcpy(result + filled, frame + HEADER_LEN, text);
			filled += text;
		} else if (frame[0] == 1) {
			c->fin_seen = true;
			set_slot(c->duplex, lane->at.phase, Py_NewRef(ended_phase));
		} else {
			reset = true;
		}
	}
	set_slot(c->duplex, lane->at.partial, PyBytes_FromStringAndSize((const char *)source + at, (Py_ssize_t)(size - at)));
	if (!bad && size - at >= HEADER_LEN && size - at >= HEADER_LEN + ((size_t)source[at + 2] << 8 | source[at + 3])) {
		set_flag(c->duplex, lane->at.wire_ready, true);
		queue(c);
	}
	if (filled)
		deliver(c, result, filled, false);
	c->bad_seen = bad;
	if ((bad || reset) && !c->gone)
		close_connection(c);
	Py_RETURN_NONE;
}

static PyObject *m_left(PyObject *const *args, Py_ssize_t count, Py_ssize_t slot)
{
	struct connection *c = connection_of(args[0]);

	CHECK(count == 2 && PyBytes_CheckExact(args[1]) && PyBytes_GET_SIZE(args[1]));
	CHECK(get_slot(c->duplex, slot) == Py_None);
	set_slot(c->duplex, slot, Py_NewRef(args[1]));
	Py_RETURN_NONE;
}

static PyObject *m_sent_short(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	(void)self;
	return m_left(args, count, lane->at.wire_left);
}

static PyObject *m_delivered_short(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	(void)self;
	return m_left(args, count, lane->at.plain_left);
}

static PyObject *m_end_of_wire(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct connection *c = connection_of(args[0]);

	(void)self;
	CHECK(count == 1 && c->wire.eof && c->wire.in_at == c->wire.in_end);
	if (!c->fin_seen || PyBytes_GET_SIZE(get_slot(c->duplex, lane->at.partial)))
		close_connection(c);
	set_flag(c->duplex, lane->at.wire_ready, false);
	Py_RETURN_NONE;
}

/* A leg failed. */
static PyObject *m_failed(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct connection *c = connection_of(args[0]);

	(void)self;
	CHECK(count <= 2 && c->hurt);
	close_connection(c);
	Py_RETURN_NONE;
}

static PyObject *m_fail(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	(void)self, (void)count;
	PyObject_Print(args[1], stderr, 0);
	CHECK(!"no step raises an exception");
	return NULL;
}

static PyMethodDef methods[] = {
	{ "_queue", (PyCFunction)(void (*)(void))m_queue, METH_FASTCALL, NULL },
	{ "_up_read", (PyCFunction)(void (*)(void))m_up_read, METH_FASTCALL, NULL },
	{ "_open_frames", (PyCFunction)(void (*)(void))m_open_frames, METH_FASTCALL, NULL },
	{ "_sent_short", (PyCFunction)(void (*)(void))m_sent_short, METH_FASTCALL, NULL },
	{ "_delivered_short", (PyCFunction)(void (*)(void))m_delivered_short, METH_FASTCALL, NULL },
	{ "_end_of_wire", (PyCFunction)(void (*)(void))m_end_of_wire, METH_FASTCALL, NULL },
	{ "_plain_failed", (PyCFunction)(void (*)(void))m_failed, METH_FASTCALL, NULL },
	{ "_down_failed", (PyCFunction)(void (*)(void))m_failed, METH_FASTCALL, NULL },
	{ "_wire_broke", (PyCFunction)(void (*)(void))m_failed, METH_FASTCALL, NULL },
	{ "fail", (PyCFunction)(void (*)(void))m_fail, METH_FASTCALL, NULL },
	{ NULL, NULL, 0, NULL },
};

/* One turn of a connection, by the calls that Duplex makes. */
static void turn(struct connection *c)
{
	PyObject *plain = get_slot(c->duplex, lane->at.plain_left), *wire = get_slot(c->duplex, lane->at.wire_left);
	int fd = FIRST_FD + 2 * (int)(c - all);
	PyObject *done;

	set_flag(c->duplex, lane->at.queued, false);
	if (!c->gone && is_true(c->duplex, lane->at.plain_ready) && wire == Py_None && get_slot(c->duplex, lane->at.state) == state_open) {
		done = PyObject_CallMethod(lane_object, "up", "Oii", c->duplex, fd, fd + 1);
		CHECK(done);
		Py_DECREF(done);
	}
	plain = get_slot(c->duplex, lane->at.plain_left);
	if (!c->gone && is_true(c->duplex, lane->at.wire_ready) && plain == Py_None) {
		if (get_slot(c->duplex, lane->at.phase) != stream_phase) { /* behind FIN the fast path has no part */
			if (c->wire.in_at < c->wire.in_end || PyBytes_GET_SIZE(get_slot(c->duplex, lane->at.partial)))
				close_connection(c);
			set_flag(c->duplex, lane->at.wire_ready, false);
			return;
		}
		done = PyObject_CallMethod(lane_object, "down", "Oii", c->duplex, fd + 1, fd);
		CHECK(done);
		Py_DECREF(done);
	}
}

/* What a leg's handler does with an event that the fast path leaves to it. */
static PyObject *m_event(PyObject *self, PyObject *mask)
{
	int fd = (int)PyLong_AsLong(self);
	struct connection *c = &all[(fd - FIRST_FD) / 2];
	bool wire = (fd - FIRST_FD) % 2;
	unsigned long seen = PyLong_AsUnsignedLong(mask);

	if (c->gone)
		Py_RETURN_NONE;
	if (seen & EPOLLOUT)
		flush(c, wire);
	if (c->gone || !(seen & ~(unsigned long)EPOLLOUT))
		Py_RETURN_NONE;
	if (seen & ~(unsigned long)(EPOLLIN | EPOLLOUT))
		set_flag(c->duplex, wire ? lane->at.wire_to_end : lane->at.plain_to_end, true);
	set_flag(c->duplex, wire ? lane->at.wire_ready : lane->at.plain_ready, true);
	turn(c);
	Py_RETURN_NONE;
}

static PyMethodDef event_method = { "on_event", m_event, METH_O, NULL };

/* -- set-up ---- */

static const char classes[] =
	"class Duplex:\n"
	"    __slots__ = ('_state', '_phase', '_queued', '_bulk_at', '_plain_ready', '_wire_ready', '_plain_to_end',\n"
	"                 '_wire_to_end', '_sent', '_received', '_active', 'partial', 'plain_left', 'wire_left',\n"
	"                 '_sealer', '_opener')\n"
	"class Direction:\n"
	"    __slots__ = ('_n', '_check_at', '_aead')\n"
	"class Engine:\n"
	"    now = 0.0\n"
	"class State:\n"
	"    OPEN, UP_ENDED, RESETTING, CLOSED = 'open', 'up ended', 'resetting', 'closed'\n"
	"STREAM, ENDED = 'stream', 'ended'\n"
	"source, result = bytearray(SCRATCH), bytearray(RESULT)\n";

static void start_python(void)
{
	PyPreConfig before;
	PyConfig config;
	PyObject *module, *names, *run, *arguments;

	PyPreConfig_InitIsolatedConfig(&before);
	before.allocator = PYMEM_ALLOCATOR_MALLOC; /* the sanitizer sees each object */
	CHECK(!PyStatus_Exception(Py_PreInitialize(&before)));
	PyConfig_InitIsolatedConfig(&config);
	config.site_import = 0;
	config.install_signal_handlers = 0;
	PyConfig_SetBytesString(&config, &config.home, PYTHON_HOME);
	PyImport_AppendInittab("_lane", PyInit__lane);
	CHECK(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
	PyConfig_Clear(&config);
	module = PyImport_ImportModule("_lane");
	CHECK(module);
	names = PyDict_New();
	PyDict_SetItemString(names, "SCRATCH", PyLong_FromLong(SCRATCH));
	PyDict_SetItemString(names, "RESULT", PyLong_FromLong(RESULT));
	PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins());
	PyDict_SetItemString(names, "__name__", PyUnicode_FromString("fuzz"));
	run = PyRun_String(classes, Py_file_input, names, names);
	CHECK(run);
	duplex_class = (PyTypeObject *)PyDict_GetItemString(names, "Duplex");
	direction_class = (PyTypeObject *)PyDict_GetItemString(names, "Direction");
	stream_phase = PyDict_GetItemString(names, "STREAM");
	ended_phase = PyDict_GetItemString(names, "ENDED");
	for (PyMethodDef *m = methods; m->ml_name; m++)
		PyObject_SetAttrString((PyObject *)duplex_class, m->ml_name, PyInstanceMethod_New(PyCFunction_New(m, NULL)));
	aead_class = (PyTypeObject *)PyType_FromSpec(&aead_spec);
	run = PyDict_GetItemString(names, "State");
	state_open = PyObject_GetAttrString(run, "OPEN");
	state_up_ended = PyObject_GetAttrString(run, "UP_ENDED");
	state_closed = PyObject_GetAttrString(run, "CLOSED");
	arguments = Py_BuildValue("OiiOOOOOO", PyObject_CallNoArgs(PyDict_GetItemString(names, "Engine")), 0, -1, duplex_class,
				  direction_class, stream_phase, run, PyDict_GetItemString(names, "source"),
				  PyDict_GetItemString(names, "result"));
	lane_object = PyObject_CallObject(PyObject_GetAttrString(module, "Lane"), arguments);
	CHECK(lane_object);
	lane = (Lane *)lane_object;
	for (uint32_t i = 0, state = 1; i < sizeof(text_bytes); i++, state = state * 1664525 + 1013904223)
		text_bytes[i] = (uint8_t)(state >> 24);
}

static PyObject *new_direction(const struct toy_keys *k)
{
	PyObject *direction = PyObject_CallNoArgs((PyObject *)direction_class);

	set_direction(direction, k, true);
	return direction;
}

static void start_leg(struct leg_io *io)
{
	io->in_at = io->in_end = io->out_end = io->news = 0;
	io->room = byte() & 1 ? amount() : CAPACITY;
	io->eof = false;
	io->error = 0;
}

static void start(struct connection *c)
{
	static const uint64_t counters[] = { 0, 1, (1 << 20) - 2, 1 << 20, UINT64_MAX - 2, 5 * (1 << 20) - 1 };
	uint8_t how = byte();
	int fd = FIRST_FD + 2 * (int)(c - all);
	const struct layout *at = &lane->at;
	const struct {
		Py_ssize_t at;
		PyObject *value;
	} values[] = {
		{ at->state, state_open },    { at->phase, stream_phase },    { at->queued, Py_False },      { at->plain_ready, Py_False },
		{ at->wire_ready, Py_False }, { at->plain_to_end, Py_False }, { at->wire_to_end, Py_False }, { at->plain_left, Py_None },
		{ at->wire_left, Py_None },   { at->active, Py_None },
	};

	memset(&c->stream_at, 0, sizeof(*c) - offsetof(struct connection, stream_at));
	c->peer_seals.n = counters[how % 6];
	c->peer_opens.n = counters[how / 6 % 6];
	memset(c->peer_seals.key, 7, TOY_KEY);
	memset(c->peer_opens.key, 8, TOY_KEY);
	start_leg(&c->plain);
	start_leg(&c->wire);
	c->duplex = PyObject_CallNoArgs((PyObject *)duplex_class);
	for (size_t i = 0; i < Py_ARRAY_LENGTH(values); i++)
		set_slot(c->duplex, values[i].at, Py_NewRef(values[i].value));
	set_slot(c->duplex, at->bulk_at, PyFloat_FromDouble(how & 128 ? now : 0));
	set_number(c->duplex, at->sent, 0);
	set_number(c->duplex, at->received, 0);
	set_slot(c->duplex, at->partial, PyBytes_FromStringAndSize(NULL, 0));
	set_slot(c->duplex, at->sealer, new_direction(&c->peer_opens));
	set_slot(c->duplex, at->opener, new_direction(&c->peer_seals));
	for (int wire = 0; wire < 2; wire++) {
		PyObject *self = PyLong_FromLong(fd + wire), *handler = PyCFunction_New(&event_method, self);
		PyObject *done = PyObject_CallMethod(lane_object, "set", "iiOOi", fd + wire, fd + !wire, c->duplex, handler, wire);

		CHECK(done);
		Py_DECREF(self);
		Py_DECREF(handler);
		Py_DECREF(done);
	}
}

/* -- steps ---- */

static void peer_sends_frame(struct connection *c)
{
	uint8_t kind = byte(), type = kind & 7, zero = kind & 64 ? byte() : 0;
	size_t len = type == 1 && !(kind & 8) ? 0 : kind & 16 ? 0 : amount();
	uint8_t *frame = c->stream + c->stream_end;
	const uint8_t *text = text_bytes + (c->expected_end + 31 * c->peer_seals.n) % CAPACITY;

	if (kind & 32)
		type = 0;
	if (c->stream_end + OVERHEAD + len > CAPACITY || c->expected_end + len > CAPACITY)
		return;
	memcpy(frame + HEADER_LEN, text, len);
	if (!toy_seal_frame(&c->peer_seals, frame, type, zero, len))
		return;
	if (kind & 128) {
		uint8_t fault = byte();
		size_t size = OVERHEAD + len, where = amount() % size;

		c->spoiled = true;
		if (fault & 1)
			return;
		if (fault & 2)
			len = where >= OVERHEAD ? where - OVERHEAD : 0;
		frame[where] ^= (uint8_t)(fault | 4);
	}
	c->stream_end += OVERHEAD + len;
	if (c->spoiled || c->said_reset)
		return;
	if (zero || type > 2 || (c->ended_stream && type != 2) || (type == 1 && len)) {
		c->spoiled = true;
	} else if (type == 0) {
		memcpy(c->expected + c->expected_end, text, len);
		c->expected_end += len;
	} else if (type == 1) {
		c->ended_stream = true;
	} else {
		c->said_reset = true;
	}
}

static void peer_sends_bytes(struct connection *c)
{
	size_t len = byte() % 32;

	if (!len || c->stream_end + len > CAPACITY)
		return;
	while (len--)
		c->stream[c->stream_end++] = byte();
	c->spoiled = true;
}

static void arrive(struct connection *c, bool wire, size_t len)
{
	struct leg_io *io = wire ? &c->wire : &c->plain;
	const uint8_t *from = wire ? c->stream + c->stream_at : text_bytes + c->plain.in_end;

	if (wire && len > c->stream_end - c->stream_at)
		len = c->stream_end - c->stream_at;
	if (!len || io->eof || io->in_end + len > CAPACITY)
		return;
	memcpy(io->in + io->in_end, from, len);
	io->in_end += len;
	if (wire)
		c->stream_at += len;
	io->news |= EPOLLIN | EPOLLOUT;
}

static void check(struct connection *c)
{
	static uint8_t frame[MAX_FRAME];

	CHECK(c->plain.out_end <= c->expected_end);
	CHECK(!memcmp(c->plain.out + c->checked, c->expected + c->checked, c->plain.out_end - c->checked));
	c->checked = c->plain.out_end;
	CHECK(number(c->duplex, lane->at.received) == c->plain.out_end);
	while (c->wire.out_end - c->frames_at >= HEADER_LEN) {
		const uint8_t *at = c->wire.out + c->frames_at;
		size_t length = (size_t)at[2] << 8 | at[3], len = length - TAG_LEN;

		CHECK(length >= TAG_LEN && length <= MAX_LENGTH && at[0] <= 1 && !at[1] && !c->fin_frame);
		if (c->wire.out_end - c->frames_at < HEADER_LEN + length)
			break;
		memcpy(frame, at, HEADER_LEN + length);
		CHECK(toy_open_frame(&c->peer_opens, frame, len));
		CHECK(!memcmp(frame + HEADER_LEN, text_bytes + c->passed, len));
		c->passed += len;
		c->fin_frame = frame[0] == 1;
		CHECK(c->passed <= c->plain.in_at && (frame[0] ? !len && c->plain.eof && c->passed == c->plain.in_end : len > 0));
		c->frames_at += HEADER_LEN + length;
	}
	CHECK(c->gone || number(c->duplex, lane->at.sent) >= c->passed);
}

/* Report the news of all legs, up to all of them in one batch, and serve them. */
static void serve_events(uint8_t order)
{
	for (int i = 0; i < 2 * CONNECTIONS; i++) {
		int fd = FIRST_FD + (i + order) % (2 * CONNECTIONS);
		struct leg_io *io = io_of(fd);

		if (!io->news || (!draining && order & 16 << i))
			continue;
		pending[pending_count++] = (struct epoll_event){ .events = io->news, .data.fd = fd };
		io->news = 0;
	}
	CHECK(run(lane, 0, true) >= 0);
	CHECK(!lane->kept && !PyErr_Occurred());
}

static bool serve_turns(void)
{
	bool any = false;

	for (int i = 0; i < CONNECTIONS; i++) {
		if (is_true(all[i].duplex, lane->at.queued) && !all[i].gone) {
			any = true;
			turn(&all[i]);
			CHECK(!PyErr_Occurred());
		} else {
			set_flag(all[i].duplex, lane->at.queued, false);
		}
	}
	return any;
}

static void step(void)
{
	static const Py_ssize_t read_sizes[] = { SCRATCH, 65536, 4096, 100, 20 };
	uint8_t op = byte();
	struct connection *c = &all[op & 1];
	bool wire = op & 2;
	struct leg_io *io = wire ? &c->wire : &c->plain;

	switch (op >> 2 & 15) {
	case 0:
	case 1:
	case 2:
		return peer_sends_frame(c);
	case 3:
		return peer_sends_bytes(c);
	case 4:
	case 5:
	case 6:
		return arrive(c, wire, amount());
	case 7:
		io->room += amount();
		io->news |= EPOLLOUT;
		return;
	case 8:
		if (!wire || c->stream_at == c->stream_end) {
			io->eof = true;
			io->news |= EPOLLIN | EPOLLOUT | EPOLLRDHUP;
		}
		return;
	case 9:
		if (op & 128) {
			io->error = ECONNRESET;
			io->news |= EPOLLIN | EPOLLERR | EPOLLHUP;
			c->hurt = true;
		}
		return;
	case 10:
		lane->read_size = read_sizes[byte() % 5];
		return;
	case 11:
		now += byte() * 1e-3;
		return;
	case 12:
	case 13:
		serve_turns();
		return;
	default:
		serve_events(byte());
	}
}

static void finish(void)
{
	draining = true;
	lane->read_size = SCRATCH;
	for (int i = 0; i < 100000; i++) {
		bool any = false;

		for (int j = 0; j < CONNECTIONS; j++) {
			struct connection *c = &all[j];

			arrive(c, true, CAPACITY);
			c->plain.room = c->wire.room = CAPACITY;
			if (c->gone)
				continue;
			if (!i || get_slot(c->duplex, lane->at.plain_left) != Py_None)
				c->plain.news |= EPOLLOUT;
			if (!i || get_slot(c->duplex, lane->at.wire_left) != Py_None)
				c->wire.news |= EPOLLOUT;
			/* edge-triggered: a leg that became ready while the other was stalled is served after the flush */
			if ((is_true(c->duplex, lane->at.plain_ready) && get_slot(c->duplex, lane->at.wire_left) == Py_None &&
			     get_slot(c->duplex, lane->at.state) == state_open) ||
			    (is_true(c->duplex, lane->at.wire_ready) && get_slot(c->duplex, lane->at.plain_left) == Py_None))
				queue(c);
			any = any || c->plain.news || c->wire.news;
		}
		if (any)
			serve_events(0);
		any = serve_turns() || any;
		if (!any)
			break;
		CHECK(i < 99999);
	}
	for (int j = 0; j < CONNECTIONS; j++) {
		struct connection *c = &all[j];

		check(c);
		if (c->gone)
			continue;
		CHECK(c->passed == c->plain.in_end || c->peer_opens.n == UINT64_MAX);
		CHECK(c->spoiled || c->said_reset || c->plain.out_end == c->expected_end || c->stream_at < c->stream_end);
		CHECK(c->fin_frame == c->plain.eof);
	}
	draining = false;
}

/* A small quarantine: every run frees all that it took. */
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=4:malloc_context_size=2:detect_leaks=0";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!lane) {
		start_python();
	}
	input = data;
	input_left = size;
	now = 1000;
	lane->read_size = SCRATCH;
	lane->small_at = byte() & 1 ? 1000 : 0;
	for (int i = 0; i < CONNECTIONS; i++)
		start(&all[i]);
	while (input_left) {
		step();
		for (int i = 0; i < CONNECTIONS; i++)
			check(&all[i]);
	}
	finish();
	for (int i = 0; i < CONNECTIONS; i++) {
		close_connection(&all[i]);
		CHECK(Py_REFCNT(all[i].duplex) == 1 && Py_REFCNT(get_slot(all[i].duplex, lane->at.sealer)) == 1);
		CHECK(Py_REFCNT(get_slot(all[i].duplex, lane->at.opener)) == 1);
		Py_CLEAR(all[i].duplex);
	}
	return 0;
}
