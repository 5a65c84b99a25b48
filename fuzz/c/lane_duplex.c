/* The methods of Duplex, in C, for the fuzzer of the fast path: what the fast path leaves to Python. */
#include "lane_harness.h"

void close_connection(struct connection *c)
{
	c->gone = true;
	set_slot(c->duplex, lane->at.state, Py_NewRef(state_closed));
	for (int wire = 0; wire < 2; wire++) {
		PyObject *done = PyObject_CallMethod(lane_object, "forget", "i", FIRST_FD + 2 * (int)(c - all) + wire);

		Py_XDECREF(done);
	}
}

void queue(struct connection *c)
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

PyMethodDef methods[] = {
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
void turn(struct connection *c)
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

PyMethodDef event_method = { "on_event", m_event, METH_O, NULL };
