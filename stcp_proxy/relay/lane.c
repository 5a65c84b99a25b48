/* The user-space engine's short way: one message from one leg to the other without the interpreter.
 *
 * pump.py and duplex.py are the engine; this file knows none of its rules. It waits in the engine's epoll set and, for a leg that
 * has bytes to read and is otherwise as it was, does what Duplex._up and Duplex._down do for exactly that: one recv into the shared
 * scratch, one call of the cipher for each frame, one send. Whatever else comes (the end of a stream, an error, a frame that is
 * not DATA, a counter at which something is due, a send that came up short) goes to the method of the Duplex that is for it,
 * with the scratch as it stands. Without this extension the engine is the same, and slower.
 *
 * What it holds to:
 * - The state is the Python objects'. Slots are read and written where their classes say they are (offset_of), at each step anew,
 *   so there is nothing to keep in step. Classes that are laid out in another way are refused when the Lane is made.
 * - The cipher is `cryptography`'s, called as from Python: encrypt_into and decrypt_into, with buffers that say where in the scratch
 *   a frame lies (Span). No key is ever seen here.
 * - A header is read before it is authenticated only to find the bounds of frames within what has been received, and to tell the
 *   common case. Nothing is delivered that did not open.
 * - Everything but the wait runs under the interpreter lock.
 */
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

#define EVENTS 128
#define JUST_BYTES (EPOLLIN | EPOLLOUT) /* what epoll reports of a leg that has bytes to read, and is otherwise as it was */

/* What Lane.run returns, together. */
enum { GUEST = 1, SEEN = 2 };

/* -- Span: a buffer that can be pointed elsewhere ------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	uint8_t *at;
	Py_ssize_t size;
} Span;

static int span_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	Span *span = (Span *)self;

	return PyBuffer_FillInfo(view, self, span->at, span->size, 0, flags);
}

static PyBufferProcs span_buffer = { .bf_getbuffer = span_getbuffer };

static Py_ssize_t span_length(PyObject *self)
{
	return ((Span *)self)->size;
}

static PySequenceMethods span_sequence = { .sq_length = span_length };

static PyTypeObject SpanType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "stcp_proxy.relay._lane.Span",
	.tp_basicsize = sizeof(Span),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_as_buffer = &span_buffer,
	.tp_as_sequence = &span_sequence,
};

static Span *span_new(uint8_t *at, Py_ssize_t size)
{
	Span *span = PyObject_New(Span, &SpanType);

	if (span) {
		span->at = at;
		span->size = size;
	}
	return span;
}

/* -- Lane ----------------------------------------------------------------------------------------------------------------------- */

/* Where Duplex and CipherDirection keep what is needed here. */
struct layout {
	Py_ssize_t up_ended, end, phase, plain_ready, wire_ready, plain_to_end, wire_to_end, sent, received, active;
	Py_ssize_t partial, plain_left, wire_left, sealer, opener;
	Py_ssize_t n, check_at, aead;
};

struct leg {
	PyObject *duplex;  /* NULL: no leg has this descriptor */
	PyObject *handler; /* its method for whatever is not the common case */
	int other;	   /* descriptor of the connection's other leg */
	bool wire;
};

typedef struct {
	PyObject_HEAD
	int epoll, guest;
	PyObject *engine;
	PyTypeObject *duplex_type;
	PyObject *stream; /* Phase.STREAM */
	struct layout at;
	Py_buffer source, result;
	Span *nonce, *header, *input, *output;
	uint8_t nonce_bytes[NONCE_LEN];
	struct leg *legs; /* by descriptor */
	int room;	  /* in `legs` */
	bool slow;	  /* Python code has run since the wait: the engine may have more to do */
	PyObject *now;	  /* time of the batch under way, seconds */
} Lane;

static PyObject *s_now, *s_queue, *s_encrypt_into, *s_decrypt_into, *s_up_read, *s_down_failed, *s_end_of_wire, *s_open_frames;
static PyObject *s_plain_failed, *s_wire_broke, *s_sent_short, *s_delivered_short, *s_fail;
static PyObject *nothing; /* b"" */

static const struct {
	PyObject **at;
	const char *name;
} names[] = {
	{ &s_now, "now" },
	{ &s_queue, "_queue" },
	{ &s_encrypt_into, "encrypt_into" },
	{ &s_decrypt_into, "decrypt_into" },
	{ &s_up_read, "_up_read" },
	{ &s_down_failed, "_down_failed" },
	{ &s_end_of_wire, "_end_of_wire" },
	{ &s_open_frames, "_open_frames" },
	{ &s_plain_failed, "_plain_failed" },
	{ &s_wire_broke, "_wire_broke" },
	{ &s_sent_short, "_sent_short" },
	{ &s_delivered_short, "_delivered_short" },
	{ &s_fail, "fail" },
};

static PyObject *get(PyObject *object, Py_ssize_t offset)
{
	return *(PyObject **)((char *)object + offset); /* borrowed */
}

/* Takes over the reference to `value`. Returns false, with an exception, where there is none. */
static bool put(PyObject *object, Py_ssize_t offset, PyObject *value)
{
	PyObject **slot = (PyObject **)((char *)object + offset);
	PyObject *old = *slot;

	if (!value)
		return false;
	*slot = value;
	Py_XDECREF(old);
	return true;
}

static bool put_flag(PyObject *object, Py_ssize_t offset, bool flag)
{
	return put(object, offset, Py_NewRef(flag ? Py_True : Py_False));
}

static bool put_number(PyObject *object, Py_ssize_t offset, uint64_t number)
{
	return put(object, offset, PyLong_FromUnsignedLongLong(number));
}

static bool add(PyObject *object, Py_ssize_t offset, Py_ssize_t amount)
{
	uint64_t number = PyLong_AsUnsignedLongLong(get(object, offset));

	return !PyErr_Occurred() && put_number(object, offset, number + (uint64_t)amount);
}

/* Call a method of a Duplex with what arguments it takes; references to the arguments are taken over. */
static bool call(Lane *lane, PyObject *duplex, PyObject *name, PyObject *a, PyObject *b, PyObject *c)
{
	PyObject *args[] = { duplex, a, b, c };
	size_t count = 1 + (a != NULL) + (b != NULL) + (c != NULL);
	PyObject *done = NULL;

	lane->slow = true;
	if (!PyErr_Occurred()) /* an argument that could not be made is NULL */
		done = PyObject_VectorcallMethod(name, args, count, NULL);
	Py_XDECREF(a);
	Py_XDECREF(b);
	Py_XDECREF(c);
	Py_XDECREF(done);
	return done != NULL;
}

/* Call a method of a Duplex with the OSError that errno stands for. */
static bool call_with_errno(Lane *lane, PyObject *duplex, PyObject *name)
{
	PyObject *number = PyLong_FromLong(errno), *text = PyUnicode_FromString(strerror(errno)), *error = NULL;

	if (number && text)
		error = PyObject_CallFunctionObjArgs(PyExc_OSError, number, text, NULL);
	Py_XDECREF(number);
	Py_XDECREF(text);
	return call(lane, duplex, name, error, NULL, NULL);
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK;
}

static ssize_t receive(int fd, uint8_t *into, size_t room)
{
	ssize_t n;

	do
		n = recv(fd, into, room, 0);
	while (n < 0 && errno == EINTR);
	return n;
}

/* Returns the bytes that went, 0 where none can go now, negative with errno. */
static ssize_t transmit(int fd, const uint8_t *from, size_t size)
{
	ssize_t n;

	do
		n = send(fd, from, size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 && would_block() ? 0 : n;
}

/* One call of the cipher. False with an exception: InvalidTag, or a bug. */
static bool cipher(Lane *lane, PyObject *aead, PyObject *name, uint64_t n, uint8_t *header, uint8_t *input, size_t input_size,
		   uint8_t *output, size_t output_size)
{
	PyObject *args[] = { aead, (PyObject *)lane->nonce, (PyObject *)lane->input, (PyObject *)lane->header,
			     (PyObject *)lane->output };
	PyObject *done;

	for (int i = NONCE_LEN - 1; i >= NONCE_LEN - 8; i--, n >>= 8)
		lane->nonce_bytes[i] = (uint8_t)n;
	lane->header->at = header;
	lane->input->at = input;
	lane->input->size = (Py_ssize_t)input_size;
	lane->output->at = output;
	lane->output->size = (Py_ssize_t)output_size;
	done = PyObject_VectorcallMethod(name, args, 5, NULL);
	Py_XDECREF(done);
	return done != NULL;
}

/* Number of the next frame of a direction, if `frames` of them can go without anything being due. */
static bool numbers(Lane *lane, PyObject *direction, size_t frames, uint64_t *n)
{
	uint64_t check_at = PyLong_AsUnsignedLongLong(get(direction, lane->at.check_at));

	*n = PyLong_AsUnsignedLongLong(get(direction, lane->at.n));
	return !PyErr_Occurred() && *n < check_at && frames <= check_at - *n;
}

/* Plain to wire, for a wire leg that has nothing left to send: what Duplex._up does. False with an exception. */
static bool up(Lane *lane, PyObject *duplex, int plain, int wire)
{
	uint8_t *source = lane->source.buf, *result = lane->result.buf;
	PyObject *sealer = get(duplex, lane->at.sealer), *aead;
	ssize_t size = receive(plain, source, (size_t)lane->source.len), done;
	size_t filled = 0, left;
	bool more;
	uint64_t n;

	if (size < 0)
		return would_block() ? put_flag(duplex, lane->at.plain_ready, false) :
				       call(lane, duplex, s_plain_failed, NULL, NULL, NULL);
	if (size == 0 || !numbers(lane, sealer, ((size_t)size + MAX_PLAINTEXT - 1) / MAX_PLAINTEXT, &n))
		return !PyErr_Occurred() && call(lane, duplex, s_up_read, PyLong_FromSsize_t(size), NULL, NULL);
	aead = get(sealer, lane->at.aead);
	for (left = (size_t)size; left;) {
		size_t part = left < MAX_PLAINTEXT ? left : MAX_PLAINTEXT, length = part + TAG_LEN;
		uint8_t *frame = result + filled;

		frame[0] = frame[1] = 0; /* DATA */
		frame[2] = (uint8_t)(length >> 8);
		frame[3] = (uint8_t)length;
		if (!cipher(lane, aead, s_encrypt_into, n, frame, source + ((size_t)size - left), part, frame + HEADER_LEN, length))
			return false;
		n++;
		filled += HEADER_LEN + length;
		left -= part;
	}
	more = size == lane->source.len || get(duplex, lane->at.plain_to_end) == Py_True;
	if (!put_number(sealer, lane->at.n, n) || !add(duplex, lane->at.sent, size) ||
	    !put_flag(duplex, lane->at.plain_ready, more) || (more && !call(lane, duplex, s_queue, NULL, NULL, NULL)))
		return false;
	done = transmit(wire, result, filled);
	if (done < 0)
		return call_with_errno(lane, duplex, s_wire_broke);
	if ((size_t)done == filled)
		return true;
	return call(lane, duplex, s_sent_short, PyLong_FromSsize_t(done), PyLong_FromSize_t(filled), NULL);
}

/* Whole DATA frames at the beginning of what was received, or -1 where a frame or a header is not of the common kind. */
static Py_ssize_t data_frames(const uint8_t *data, size_t size)
{
	Py_ssize_t frames = 0;
	size_t at = 0;

	while (size - at >= HEADER_LEN) {
		const uint8_t *header = data + at;
		size_t length = (size_t)header[2] << 8 | header[3];

		if (header[0] || header[1] || length <= TAG_LEN || length > MAX_LENGTH)
			return -1;
		if (size - at < HEADER_LEN + length)
			break;
		at += HEADER_LEN + length;
		frames++;
	}
	return frames;
}

/* Wire to plain, while DATA may come and the plain leg has nothing left to send: what Duplex._down does. False with an exception. */
static bool down(Lane *lane, PyObject *duplex, int wire, int plain)
{
	uint8_t *source = lane->source.buf, *result = lane->result.buf;
	PyObject *opener = get(duplex, lane->at.opener), *partial = get(duplex, lane->at.partial), *aead;
	size_t held, room, size, at = 0, filled = 0;
	ssize_t got, done;
	Py_ssize_t frames;
	bool more;
	uint64_t n, first;

	if (!PyBytes_CheckExact(partial) || PyBytes_GET_SIZE(partial) >= lane->source.len) {
		PyErr_SetString(PyExc_TypeError, "the beginning of a frame is bytes, and less than the scratch holds");
		return false;
	}
	held = (size_t)PyBytes_GET_SIZE(partial);
	room = (size_t)lane->source.len - held;
	if (held)
		memcpy(source, PyBytes_AS_STRING(partial), held);
	got = receive(wire, source + held, room);
	if (got < 0)
		return would_block() ? put_flag(duplex, lane->at.wire_ready, false) : call_with_errno(lane, duplex, s_down_failed);
	if (got == 0)
		return call(lane, duplex, s_end_of_wire, NULL, NULL, NULL);
	more = (size_t)got == room || get(duplex, lane->at.wire_to_end) == Py_True;
	if (!put_flag(duplex, lane->at.wire_ready, more) || (more && !call(lane, duplex, s_queue, NULL, NULL, NULL)))
		return false;
	size = held + (size_t)got;
	frames = data_frames(source, size);
	if (frames < 0 || !numbers(lane, opener, (size_t)frames, &first))
		return !PyErr_Occurred() && call(lane, duplex, s_open_frames, PyLong_FromSize_t(size), NULL, NULL);
	aead = get(opener, lane->at.aead);
	for (n = first; n < first + (uint64_t)frames; n++) {
		size_t length = (size_t)source[at + 2] << 8 | source[at + 3];

		if (!cipher(lane, aead, s_decrypt_into, n, source + at, source + at + HEADER_LEN, length, result + filled,
			    length - TAG_LEN))
			break;
		at += HEADER_LEN + length;
		filled += length - TAG_LEN;
	}
	if (PyErr_Occurred()) { /* let the engine open that frame, and say what is wrong with it */
		PyErr_Clear();
		return put_number(opener, lane->at.n, n) && call(lane, duplex, s_open_frames, PyLong_FromSize_t(size),
								 PyLong_FromSize_t(at), PyLong_FromSize_t(filled));
	}
	if (n != first && !put_number(opener, lane->at.n, n))
		return false;
	if (held || at < size) {
		if (!put(duplex, lane->at.partial,
			 at < size ? PyBytes_FromStringAndSize((char *)source + at, (Py_ssize_t)(size - at)) : Py_NewRef(nothing)))
			return false;
	}
	if (!filled)
		return true;
	done = transmit(plain, result, filled);
	if (done < 0)
		return call(lane, duplex, s_plain_failed, NULL, NULL, NULL);
	if (!add(duplex, lane->at.received, done))
		return false;
	if ((size_t)done == filled)
		return true;
	return call(lane, duplex, s_delivered_short, PyLong_FromSsize_t(done), PyLong_FromSize_t(filled), NULL);
}

/* One event of one leg. False with an exception. */
static bool on_event(Lane *lane, struct leg *leg, PyObject *duplex, uint32_t mask, int fd)
{
	const struct layout *at = &lane->at;
	PyObject *argument, *done;

	if (mask == JUST_BYTES && get(duplex, at->end) == Py_None && get(duplex, at->plain_left) == Py_None &&
	    get(duplex, at->wire_left) == Py_None) {
		if (!put(duplex, at->active, Py_NewRef(lane->now)))
			return false;
		if (!leg->wire && get(duplex, at->up_ended) == Py_False)
			return up(lane, duplex, fd, leg->other);
		if (leg->wire && get(duplex, at->phase) == lane->stream)
			return down(lane, duplex, fd, leg->other);
	}
	lane->slow = true;
	argument = PyLong_FromUnsignedLong(mask);
	if (!argument)
		return false;
	done = PyObject_CallOneArg(leg->handler, argument);
	Py_DECREF(argument);
	Py_XDECREF(done);
	return done != NULL;
}

/* Tell a Duplex of the exception that its step raised: a bug of ours, which ends that connection and no other. */
static bool tell(Lane *lane, PyObject *duplex)
{
	PyObject *type, *value, *traceback;
	bool done;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (!PyErr_GivenExceptionMatches(type, PyExc_Exception)) { /* an interrupt is not a bug */
		PyErr_Restore(type, value, traceback);
		return false;
	}
	if (traceback)
		PyException_SetTraceback(value, traceback);
	done = call(lane, duplex, s_fail, Py_NewRef(value), NULL, NULL);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	return done;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t); /* time.monotonic()'s */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int milliseconds(double wait)
{
	if (wait == INFINITY)
		return -1;
	if (wait <= 0)
		return 0;
	return wait > 86400 ? 86400 * 1000 : (int)ceil(wait * 1000); /* rounded up, so that what is waited for is due */
}

PyDoc_STRVAR(run_doc, "run(wait, once)\n--\n\n"
		      "Relay until the engine has something to do besides, or the time is over.\n\n"
		      "Args:\n    wait: seconds; None is no limit.\n    once: return after the first wait.\n\n"
		      "Returns:\n    GUEST where the guest descriptor is ready, plus SEEN where anything was.");

static PyObject *lane_run(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	Lane *lane = (Lane *)self;
	struct epoll_event events[EVENTS];
	double wait = INFINITY, until = INFINITY;
	int once, answer = 0;

	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "run() takes 2 arguments");
		return NULL;
	}
	if (args[0] != Py_None) {
		wait = PyFloat_AsDouble(args[0]);
		if (PyErr_Occurred())
			return NULL;
		until = seconds() + wait;
	}
	once = PyObject_IsTrue(args[1]);
	if (once < 0)
		return NULL;
	lane->slow = false;
	do {
		int ready, patience = milliseconds(wait);
		double now;

		Py_BEGIN_ALLOW_THREADS
		ready = epoll_wait(lane->epoll, events, EVENTS, patience);
		Py_END_ALLOW_THREADS
		if (ready < 0 && errno != EINTR)
			return PyErr_SetFromErrno(PyExc_OSError);
		if (ready < 0) {
			if (PyErr_CheckSignals())
				return NULL;
			ready = 0;
			once = true;
		}
		now = seconds();
		Py_XSETREF(lane->now, PyFloat_FromDouble(now));
		if (!lane->now || PyObject_SetAttr(lane->engine, s_now, lane->now))
			return NULL;
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			struct leg leg;

			if (fd == lane->guest) {
				answer |= GUEST;
				continue;
			}
			if (fd < 0 || fd >= lane->room || !lane->legs[fd].duplex) {
				lane->slow = true; /* the engine's own wake-up, or a leg that is gone */
				continue;
			}
			leg = lane->legs[fd]; /* a step may take it from the table */
			Py_INCREF(leg.duplex);
			Py_INCREF(leg.handler);
			if (!on_event(lane, &leg, leg.duplex, events[i].events, fd) && !tell(lane, leg.duplex))
				answer = -1;
			Py_DECREF(leg.handler);
			Py_DECREF(leg.duplex);
			if (answer < 0)
				return NULL;
		}
		if (ready)
			answer |= SEEN;
		wait = until - now;
	} while (!once && !lane->slow && !(answer & GUEST) && wait > 0);
	return PyLong_FromLong(answer);
}

PyDoc_STRVAR(set_doc, "set(fd, other, duplex, handler, wire)\n--\n\n"
		      "A leg of a Duplex: its descriptor, the other leg's, the method for what is not the common case, and which leg it is.");

static PyObject *lane_set(PyObject *self, PyObject *args)
{
	Lane *lane = (Lane *)self;
	struct leg leg;
	int fd, wire;

	if (!PyArg_ParseTuple(args, "iiOOp", &fd, &leg.other, &leg.duplex, &leg.handler, &wire))
		return NULL;
	leg.wire = wire;
	if (fd < 0 || leg.other < 0 || Py_TYPE(leg.duplex) != lane->duplex_type) {
		PyErr_SetString(PyExc_ValueError, "not a leg of a Duplex");
		return NULL;
	}
	if (fd >= lane->room) {
		int room = fd < 1024 ? 2048 : 2 * fd;
		struct leg *legs = PyMem_Realloc(lane->legs, (size_t)room * sizeof(*legs));

		if (!legs)
			return PyErr_NoMemory();
		memset(legs + lane->room, 0, (size_t)(room - lane->room) * sizeof(*legs));
		lane->legs = legs;
		lane->room = room;
	}
	Py_INCREF(leg.duplex);
	Py_INCREF(leg.handler);
	Py_XDECREF(lane->legs[fd].duplex);
	Py_XDECREF(lane->legs[fd].handler);
	lane->legs[fd] = leg;
	Py_RETURN_NONE;
}

typedef bool (*step_fn)(Lane *lane, PyObject *duplex, int from, int to);

static PyObject *step(PyObject *self, PyObject *const *args, Py_ssize_t count, step_fn way)
{
	Lane *lane = (Lane *)self;
	int from, to;

	if (count != 3 || Py_TYPE(args[0]) != lane->duplex_type) {
		PyErr_SetString(PyExc_TypeError, "a Duplex and two descriptors are needed");
		return NULL;
	}
	from = (int)PyLong_AsLong(args[1]);
	to = (int)PyLong_AsLong(args[2]);
	if (PyErr_Occurred() || !way(lane, args[0], from, to))
		return NULL;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(up_doc, "up(duplex, plain, wire)\n--\n\n"
		     "Plain to wire, for a wire leg that has nothing left to send: what Duplex._up does, by descriptors.");

static PyObject *lane_up(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return step(self, args, count, up);
}

PyDoc_STRVAR(down_doc, "down(duplex, wire, plain)\n--\n\n"
		       "Wire to plain, while DATA may come and the plain leg has nothing left to send: what Duplex._down does.");

static PyObject *lane_down(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return step(self, args, count, down);
}

static void drop_leg(struct leg *leg)
{
	Py_CLEAR(leg->duplex);
	Py_CLEAR(leg->handler);
}

PyDoc_STRVAR(forget_doc, "forget(fd)\n--\n\nNo event of this descriptor is acted on any more.");

static PyObject *lane_forget(PyObject *self, PyObject *argument)
{
	Lane *lane = (Lane *)self;
	long fd = PyLong_AsLong(argument);

	if (fd == -1 && PyErr_Occurred())
		return NULL;
	if (fd >= 0 && fd < lane->room)
		drop_leg(&lane->legs[fd]);
	Py_RETURN_NONE;
}

/* Where instances of `type` keep a slot, or -1 with an exception. */
static Py_ssize_t offset_of(PyTypeObject *type, const char *name)
{
	PyObject *slot = PyObject_GetAttrString((PyObject *)type, name);
	Py_ssize_t offset = -1;

	if (!slot)
		return -1;
	if (Py_TYPE(slot) == &PyMemberDescr_Type && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX)
		offset = ((PyMemberDescrObject *)slot)->d_member->offset;
	else
		PyErr_Format(PyExc_TypeError, "%s.%s is not a slot", type->tp_name, name);
	Py_DECREF(slot);
	return offset;
}

static bool lay_out(struct layout *at, PyTypeObject *duplex, PyTypeObject *direction)
{
	const struct {
		Py_ssize_t *at;
		PyTypeObject *type;
		const char *name;
	} slots[] = {
		{ &at->up_ended, duplex, "_up_ended" },
		{ &at->end, duplex, "_end" },
		{ &at->phase, duplex, "_phase" },
		{ &at->plain_ready, duplex, "_plain_ready" },
		{ &at->wire_ready, duplex, "_wire_ready" },
		{ &at->plain_to_end, duplex, "_plain_to_end" },
		{ &at->wire_to_end, duplex, "_wire_to_end" },
		{ &at->sent, duplex, "_sent" },
		{ &at->received, duplex, "_received" },
		{ &at->active, duplex, "_active" },
		{ &at->partial, duplex, "partial" },
		{ &at->plain_left, duplex, "plain_left" },
		{ &at->wire_left, duplex, "wire_left" },
		{ &at->sealer, duplex, "_sealer" },
		{ &at->opener, duplex, "_opener" },
		{ &at->n, direction, "_n" },
		{ &at->check_at, direction, "_check_at" },
		{ &at->aead, direction, "_aead" },
	};

	for (size_t i = 0; i < Py_ARRAY_LENGTH(slots); i++) {
		*slots[i].at = offset_of(slots[i].type, slots[i].name);
		if (*slots[i].at < 0)
			return false;
	}
	return true;
}

static int lane_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	Lane *lane = (Lane *)self;
	PyObject *engine, *duplex, *direction, *stream, *source, *result;
	int epoll, guest;

	if (kwargs && PyDict_GET_SIZE(kwargs)) {
		PyErr_SetString(PyExc_TypeError, "Lane() takes no keyword arguments");
		return -1;
	}
	if (lane->engine) {
		PyErr_SetString(PyExc_TypeError, "a Lane is made once");
		return -1;
	}
	if (!PyArg_ParseTuple(args, "OiiO!O!OOO", &engine, &epoll, &guest, &PyType_Type, &duplex, &PyType_Type, &direction, &stream,
			      &source, &result))
		return -1;
	if (!lay_out(&lane->at, (PyTypeObject *)duplex, (PyTypeObject *)direction))
		return -1;
	if (PyObject_GetBuffer(source, &lane->source, PyBUF_WRITABLE) || PyObject_GetBuffer(result, &lane->result, PyBUF_WRITABLE))
		return -1;
	if (lane->source.len < MAX_FRAME ||
	    lane->result.len < lane->source.len + (lane->source.len + MAX_PLAINTEXT - 1) / MAX_PLAINTEXT * OVERHEAD) {
		PyErr_SetString(PyExc_ValueError, "the scratch is too small");
		return -1;
	}
	lane->nonce = span_new(lane->nonce_bytes, NONCE_LEN);
	lane->header = span_new(NULL, HEADER_LEN);
	lane->input = span_new(NULL, 0);
	lane->output = span_new(NULL, 0);
	if (!lane->nonce || !lane->header || !lane->input || !lane->output)
		return -1;
	lane->epoll = epoll;
	lane->guest = guest;
	lane->duplex_type = (PyTypeObject *)Py_NewRef(duplex);
	lane->stream = Py_NewRef(stream);
	lane->engine = Py_NewRef(engine);
	return 0;
}

static int lane_traverse(PyObject *self, visitproc visit, void *arg)
{
	Lane *lane = (Lane *)self;

	Py_VISIT(lane->engine);
	Py_VISIT(lane->duplex_type);
	Py_VISIT(lane->stream);
	for (int i = 0; i < lane->room; i++) {
		Py_VISIT(lane->legs[i].duplex);
		Py_VISIT(lane->legs[i].handler);
	}
	return 0;
}

static int lane_clear(PyObject *self)
{
	Lane *lane = (Lane *)self;

	for (int i = 0; i < lane->room; i++)
		drop_leg(&lane->legs[i]);
	Py_CLEAR(lane->engine);
	return 0;
}

static void lane_dealloc(PyObject *self)
{
	Lane *lane = (Lane *)self;

	PyObject_GC_UnTrack(self);
	lane_clear(self);
	PyMem_Free(lane->legs);
	Py_CLEAR(lane->duplex_type);
	Py_CLEAR(lane->stream);
	Py_CLEAR(lane->now);
	Py_CLEAR(lane->nonce);
	Py_CLEAR(lane->header);
	Py_CLEAR(lane->input);
	Py_CLEAR(lane->output);
	PyBuffer_Release(&lane->source);
	PyBuffer_Release(&lane->result);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef lane_methods[] = {
	{ "run", (PyCFunction)(void (*)(void))lane_run, METH_FASTCALL, run_doc },
	{ "up", (PyCFunction)(void (*)(void))lane_up, METH_FASTCALL, up_doc },
	{ "down", (PyCFunction)(void (*)(void))lane_down, METH_FASTCALL, down_doc },
	{ "set", lane_set, METH_VARARGS, set_doc },
	{ "forget", lane_forget, METH_O, forget_doc },
	{ NULL, NULL, 0, NULL },
};

static PyMemberDef lane_members[] = {
	{ "guest", T_INT, offsetof(Lane, guest), 0, "descriptor to report, or -1" },
	{ NULL, 0, 0, 0, NULL },
};

PyDoc_STRVAR(lane_doc, "Lane(engine, epoll, guest, duplex_type, direction_type, stream, source, result)\n--\n\n"
		       "Waits for an engine's epoll set and carries the common case; relay/lane.c tells what that is.");

static PyTypeObject LaneType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "stcp_proxy.relay._lane.Lane",
	.tp_doc = lane_doc,
	.tp_basicsize = sizeof(Lane),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = PyType_GenericNew,
	.tp_init = lane_init,
	.tp_dealloc = lane_dealloc,
	.tp_traverse = lane_traverse,
	.tp_clear = lane_clear,
	.tp_methods = lane_methods,
	.tp_members = lane_members,
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "stcp_proxy.relay._lane",
	.m_doc = "The user-space engine's short way, in C; relay/lane.c.",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__lane(void)
{
	PyObject *made;

	if (PyType_Ready(&SpanType) || PyType_Ready(&LaneType))
		return NULL;
	for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
		*names[i].at = PyUnicode_InternFromString(names[i].name);
		if (!*names[i].at)
			return NULL;
	}
	nothing = PyBytes_FromStringAndSize(NULL, 0);
	if (!nothing)
		return NULL;
	made = PyModule_Create(&module);
	if (!made)
		return NULL;
	if (PyModule_AddObjectRef(made, "Lane", (PyObject *)&LaneType) || PyModule_AddIntMacro(made, GUEST) ||
	    PyModule_AddIntMacro(made, SEEN) || PyModule_AddIntMacro(made, HEADER_LEN) || PyModule_AddIntMacro(made, TAG_LEN) ||
	    PyModule_AddIntMacro(made, NONCE_LEN) || PyModule_AddIntMacro(made, MAX_FRAME) ||
	    PyModule_AddIntMacro(made, MAX_LENGTH) || PyModule_AddIntMacro(made, MAX_PLAINTEXT)) {
		Py_DECREF(made);
		return NULL;
	}
	return made;
}
