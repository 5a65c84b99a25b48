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
#include "lane_harness.h"

struct connection all[CONNECTIONS];
uint8_t text_bytes[CAPACITY + MAX_FRAME];
static bool draining;

void broken(const char *what, const char *file, int line)
{
	fprintf(stderr, "BROKEN: %s (%s:%d)\n", what, file, line);
	if (PyErr_Occurred())
		PyErr_Print();
	abort();
}

/* -- the input ---- */

static const uint8_t *input;
static size_t input_left;

uint8_t byte(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

size_t amount(void)
{
	static const uint32_t common[] = {
		1, 2, 3, 4, 16, 19, 20, 21, 255, 1004, 1024, 1025, 16383, 16384, MAX_PLAINTEXT, MAX_PLAINTEXT + 3
	};
	uint8_t choice = byte();

	return choice < 16 ? common[choice] : choice < 252 ? choice : (size_t)(choice - 251) * 9173;
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
		/* a byte of what is left: what follows could be just the bytes that were cut */
		frame[where % (OVERHEAD + len)] ^= (uint8_t)(fault | 4);
	}
	c->stream_end += OVERHEAD + len;
	if (c->spoiled || c->said_reset)
		return;
	if (zero || type > 2 || len > MAX_PLAINTEXT || (c->ended_stream && type != 2) || (type == 1 && len)) {
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
		CHECK(c->spoiled || !c->said_reset || c->stream_at < c->stream_end); /* RESET, also behind FIN, ends it */
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
