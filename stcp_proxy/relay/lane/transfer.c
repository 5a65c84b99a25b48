/* Move one buffer from one leg to the other: receive, cipher, send.
 *
 * An unauthenticated header is read for two purposes only: to find the bounds of the received frames, and to see that they are DATA.
 * Only authenticated plaintext is delivered. A method of the Duplex handles every other case, with the scratch unchanged.
 */
#include "lane.h"

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

/* Most bytes of one read. */
static size_t read_limit(const Lane *lane)
{
	Py_ssize_t limit = lane->source.len;

	if (lane->read_size > 0 && lane->read_size < limit)
		limit = lane->read_size;
	if (limit > SHARED_READ && lane->time - lane->small_at < SHARED_FOR)
		limit = SHARED_READ;
	return (size_t)limit;
}

/* Do the work of Connection._note_read. False with an exception. */
static bool note_read(Lane *lane, PyObject *duplex, ssize_t size)
{
	Py_ssize_t bulk_at = lane->at.bulk_at;

	if (size >= SMALL)
		return set_slot(duplex, bulk_at, PyFloat_FromDouble(lane->time));
	if (size > 0 && lane->time - PyFloat_AsDouble(get_slot(duplex, bulk_at)) > BULK_FOR) {
		double gap = lane->time - lane->small_at;

		lane->small_gap += ((gap < SHARED_FOR ? gap : SHARED_FOR) - lane->small_gap) / WEIGHT;
		lane->small_at = lane->time;
	}
	return !PyErr_Occurred();
}

/* Send once. Returns the bytes sent, 0 if the socket would block, negative with errno. */
ssize_t transmit(int fd, const uint8_t *from, size_t size)
{
	ssize_t n;

	do
		n = send(fd, from, size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 && would_block() ? 0 : n;
}

/* Call the cipher once, for frame number `n`. False with an exception: InvalidTag, or a bug. */
static bool cipher(Lane *lane, PyObject *aead, PyObject *name, uint64_t n, uint8_t *header, uint8_t *input, size_t input_size,
		   uint8_t *output, size_t output_size)
{
	PyObject *args[] = { aead, (PyObject *)lane->nonce, (PyObject *)lane->input, (PyObject *)lane->header, (PyObject *)lane->output };
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

/* Set `n` to the number of the next frame of a direction. False if a rekey or the limit of the counter falls within `frames`
 * frames, or with an exception. */
static bool next_number(Lane *lane, PyObject *direction, size_t frames, uint64_t *n)
{
	uint64_t check_at = PyLong_AsUnsignedLongLong(get_slot(direction, lane->at.check_at));

	*n = PyLong_AsUnsignedLongLong(get_slot(direction, lane->at.n));
	return !PyErr_Occurred() && *n < check_at && frames <= check_at - *n;
}

/* Whether the state is one of RELAYING in states.py. */
bool relaying(const Lane *lane, PyObject *duplex)
{
	PyObject *state = get_slot(duplex, lane->at.state);

	return state != lane->resetting && state != lane->closed;
}

/* Whether a connection still has this leg and relays: a Python method may have ended it meanwhile. */
bool alive(const Lane *lane, PyObject *duplex, int fd)
{
	return fd >= 0 && fd < lane->room && lane->legs[fd].duplex == duplex && relaying(lane, duplex);
}

/* Act on the result of a send: count the bytes, or report a failure or a short write to the Duplex. False with an exception.
 *
 * wire: the bytes are frames for the wire leg, else plaintext for the plain leg.
 * done: the result of `transmit`; error: errno after it. */
bool finish_send(Lane *lane, PyObject *duplex, bool wire, const uint8_t *from, size_t size, ssize_t done, int error)
{
	if (done < 0)
		return wire ? call_with_errno(lane, duplex, s_wire_broke, error) : call(lane, duplex, s_plain_failed, NULL, NULL, NULL);
	if (!wire && !add_to_slot(duplex, lane->at.received, done))
		return false;
	if ((size_t)done == size)
		return true;
	return call(lane, duplex, wire ? s_sent_short : s_delivered_short,
		    PyBytes_FromStringAndSize((const char *)from + done, (Py_ssize_t)size - done), NULL, NULL);
}

/* Keep a small write while a batch is served; send any other at once. False with an exception. */
static bool send_or_keep(Lane *lane, PyObject *duplex, int to, bool wire, const uint8_t *from, size_t size)
{
	ssize_t done;

	if (lane->keeping && size <= MAX_KEPT_SIZE)
		return keep_write(lane, duplex, to, wire, from, size);
	if (!send_kept_writes(lane))
		return false;
	if (!alive(lane, duplex, to))
		return true;
	done = transmit(to, from, size);
	return finish_send(lane, duplex, wire, from, size, done, errno);
}

/* Seal `size` bytes of the source as DATA frames from number `n` on. Returns the bytes of the frames, 0 with an exception. */
static size_t seal_frames(Lane *lane, PyObject *aead, uint64_t n, size_t size)
{
	uint8_t *source = lane->source.buf, *result = lane->result.buf;
	size_t filled = 0;

	for (size_t left = size; left;) {
		size_t part = left < MAX_PLAINTEXT ? left : MAX_PLAINTEXT, length = part + TAG_LEN;
		uint8_t *frame = result + filled;

		frame[0] = frame[1] = 0; /* DATA */
		frame[2] = (uint8_t)(length >> 8);
		frame[3] = (uint8_t)length;
		if (!cipher(lane, aead, s_encrypt_into, n, frame, source + (size - left), part, frame + HEADER_LEN, length))
			return 0;
		n++;
		filled += HEADER_LEN + length;
		left -= part;
	}
	return filled;
}

/* Do the work of PlainToWire._up. The wire leg has nothing left to send. False with an exception. */
bool up(Lane *lane, PyObject *duplex, int plain, int wire)
{
	PyObject *sealer = get_slot(duplex, lane->at.sealer);
	size_t limit = read_limit(lane), frames, filled;
	ssize_t size = receive(plain, lane->source.buf, limit);
	bool more;
	uint64_t n;

	if (size < 0)
		return would_block() ? set_flag(duplex, lane->at.plain_ready, false) : call(lane, duplex, s_plain_failed, NULL, NULL, NULL);
	if (!note_read(lane, duplex, size))
		return false;
	frames = ((size_t)size + MAX_PLAINTEXT - 1) / MAX_PLAINTEXT;
	if (size == 0 || !next_number(lane, sealer, frames, &n))
		return !PyErr_Occurred() &&
		       call(lane, duplex, s_up_read, PyLong_FromSsize_t(size), PyBool_FromLong((size_t)size == limit), NULL);
	filled = seal_frames(lane, get_slot(sealer, lane->at.aead), n, (size_t)size);
	if (!filled)
		return false;
	more = (size_t)size == limit || get_slot(duplex, lane->at.plain_to_end) == Py_True;
	if (!set_number(sealer, lane->at.n, n + frames) || !add_to_slot(duplex, lane->at.sent, size) ||
	    !set_flag(duplex, lane->at.plain_ready, more) || (more && !call(lane, duplex, s_queue, NULL, NULL, NULL)))
		return false;
	return send_or_keep(lane, duplex, wire, true, lane->result.buf, filled);
}

static bool begins_with_frame(const uint8_t *data, size_t size)
{
	return size >= HEADER_LEN && size >= HEADER_LEN + ((size_t)data[2] << 8 | data[3]);
}

/* Count whole DATA frames at the beginning of `data`, up to FRAMES_PER_TURN. Returns -1 if a header is not one of DATA. */
static Py_ssize_t data_frames(const uint8_t *data, size_t size)
{
	Py_ssize_t frames = 0;
	size_t at = 0;

	while (frames < FRAMES_PER_TURN && size - at >= HEADER_LEN) {
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

/* Open up to `frames` DATA frames at the beginning of the source, from number `n` on.
 *
 * at, filled: set to the bytes of the opened frames, and of their plaintext in the result.
 * Returns the number of the next frame. An exception is set if a frame did not open. */
static uint64_t open_frames(Lane *lane, PyObject *aead, uint64_t n, Py_ssize_t frames, size_t *at, size_t *filled)
{
	uint8_t *source = lane->source.buf, *result = lane->result.buf;

	for (; frames; frames--, n++) {
		uint8_t *frame = source + *at;
		size_t length = (size_t)frame[2] << 8 | frame[3];

		if (!cipher(lane, aead, s_decrypt_into, n, frame, frame + HEADER_LEN, length, result + *filled, length - TAG_LEN))
			break;
		*at += HEADER_LEN + length;
		*filled += length - TAG_LEN;
	}
	return n;
}

/* Store the rest of the received bytes in the Duplex. If it begins with a whole frame, queue a further turn. False with an exception. */
static bool store_rest(Lane *lane, PyObject *duplex, size_t held, const uint8_t *rest, size_t size, bool queued)
{
	if (!queued && begins_with_frame(rest, size) &&
	    (!set_flag(duplex, lane->at.wire_ready, true) || !call(lane, duplex, s_queue, NULL, NULL, NULL)))
		return false;
	if (!held && !size)
		return true;
	return set_slot(duplex, lane->at.partial, PyBytes_FromStringAndSize(size ? (const char *)rest : NULL, (Py_ssize_t)size));
}

/* Open and deliver the `size` bytes of frames in the source, of which `held` were in `partial`. False with an exception. */
static bool open_and_deliver(Lane *lane, PyObject *duplex, int plain, size_t held, size_t size, bool queued)
{
	uint8_t *source = lane->source.buf;
	PyObject *opener = get_slot(duplex, lane->at.opener);
	Py_ssize_t frames = data_frames(source, size);
	size_t at = 0, filled = 0;
	uint64_t n, first;

	if (frames < 0 || !next_number(lane, opener, (size_t)frames, &first))
		return !PyErr_Occurred() && call(lane, duplex, s_open_frames, PyLong_FromSize_t(size), NULL, NULL);
	n = open_frames(lane, get_slot(opener, lane->at.aead), first, frames, &at, &filled);
	if (PyErr_Occurred()) { /* let the Duplex open that frame and report the fault */
		PyErr_Clear();
		return set_number(opener, lane->at.n, n) &&
		       call(lane, duplex, s_open_frames, PyLong_FromSize_t(size), PyLong_FromSize_t(at), PyLong_FromSize_t(filled));
	}
	if (n != first && !set_number(opener, lane->at.n, n))
		return false;
	if (!store_rest(lane, duplex, held, source + at, size - at, queued))
		return false;
	return !filled || send_or_keep(lane, duplex, plain, false, lane->result.buf, filled);
}

/* Do the work of WireToPlain._down while DATA may come. The plain leg has nothing left to send. False with an exception. */
bool down(Lane *lane, PyObject *duplex, int wire, int plain)
{
	uint8_t *source = lane->source.buf;
	PyObject *partial = get_slot(duplex, lane->at.partial);
	size_t held, room;
	ssize_t got;
	bool more, rest;

	if (!PyBytes_CheckExact(partial) || PyBytes_GET_SIZE(partial) >= lane->source.len) {
		PyErr_SetString(PyExc_TypeError, "the beginning of a frame is bytes, and less than the scratch holds");
		return false;
	}
	held = (size_t)PyBytes_GET_SIZE(partial);
	room = (size_t)lane->source.len - held;
	if (room > read_limit(lane))
		room = read_limit(lane);
	if (held)
		memcpy(source, PyBytes_AS_STRING(partial), held);
	rest = begins_with_frame(source, held); /* the last turn left whole frames */
	got = rest ? 0 : receive(wire, source + held, room);
	if (got < 0)
		return would_block() ? set_flag(duplex, lane->at.wire_ready, false) : call_with_errno(lane, duplex, s_down_failed, errno);
	if (got == 0 && !rest)
		return call(lane, duplex, s_end_of_wire, NULL, NULL, NULL);
	if (!note_read(lane, duplex, got))
		return false;
	more = rest || (size_t)got == room || get_slot(duplex, lane->at.wire_to_end) == Py_True;
	if (!set_flag(duplex, lane->at.wire_ready, more) || (more && !call(lane, duplex, s_queue, NULL, NULL, NULL)))
		return false;
	return open_and_deliver(lane, duplex, plain, held, held + (size_t)got, more);
}
